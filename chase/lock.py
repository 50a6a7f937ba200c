"""A folder that one process at a time trains in."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from chase.errors import RecipeError
from chase.files import writing

NAME = "training.lock"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Until the block ends, keep the other processes of this machine from training in a folder. A process that was
    killed holds nothing, and what runs on another machine cannot be told. A folder that was made for this and stayed
    empty goes again.

    Raises:
        RecipeError: if another process trains there.
        OutputError: if the folder cannot be written to.
    """
    lock = folder / NAME
    if (holder := _holder(lock)) is not None:
        raise RecipeError(f"process {holder} is training in {folder}; wait for it, or choose another folder with --run")
    new = not folder.exists()
    with writing(lock):
        lock.unlink(missing_ok=True)
        with lock.open("x") as file:
            file.write(_signature(os.getpid()))
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        if new:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def _holder(lock: Path) -> int | None:
    """The number of the living process that holds a lock."""
    try:
        signature = lock.read_text()
    except OSError:
        return None
    number = signature.rpartition(" ")[0].rpartition(" ")[2]
    return int(number) if number.isdigit() and _signature(int(number)) == signature else None


def _signature(process: int) -> str:
    """What tells a living process from others, also from a later one with its number; "" if there is none."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass  # somebody else's, and alive
    return f"{socket.gethostname()} {process} {_started(process)}"


def _started(process: int) -> str:
    """When a process started, in ticks since the machine did, where the system tells."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    return "-"
