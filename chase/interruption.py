"""Signals that ask a program to end, heard where it suits the program."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Until the block ends, the first SIGINT or SIGTERM only changes the answer of the question that this yields, from
    no to yes; the second is KeyboardInterrupt at once. A signal that was ignored stays ignored."""
    asked, owner = False, os.getpid()

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if os.getpid() != owner:  # a worker that was forked meanwhile ends as it always would
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = {number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    if threading.current_thread() is not threading.main_thread():
        ours = set()  # only the main thread may handle signals
    for number in ours:
        signal.signal(number, hear)
    try:
        yield lambda: asked
    finally:
        for number in ours:
            signal.signal(number, before[number])
