"""Signals are heard where it suits the program."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from chase.interruption import SIGNALS, deferred


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_an_answer_and_the_second_an_exception(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with deferred() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)

    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            assert not asked()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_signals_alone() -> None:
    found: list[bool] = []

    def run() -> None:
        with deferred() as asked:
            found.append(asked())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert found == [False]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_worker_ends_at_the_first_signal() -> None:
    with deferred() as asked:
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(child, 0)

        assert os.WTERMSIG(status) == signal.SIGTERM
        assert not asked()
