"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chase.errors import OutputError


@contextlib.contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it replaces `path` when the block ends without an error.

    Raises:
        OutputError: if the folder cannot be written to or the disk is full; `path` keeps what it held.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make the folder of `path`, and say in one line what keeps the block from writing there.

    Raises:
        OutputError: if something does.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write {path}: {reason}; choose another output path") from error


def sweep(path: Path) -> None:
    """Remove what writers of `path` that were killed have left beside it; nobody may be writing it now."""
    for litter in path.parent.glob(f".{path.name}.*.tmp"):
        litter.unlink(missing_ok=True)


@contextlib.contextmanager
def staged(path: Path | str) -> Iterator[Path]:
    """The same name in a temporary folder beside `path`; all that lies there in the end moves to the folder of `path`.

    For results of several files, or of a folder. `path` itself moves last, so that it is never there alone.

    Raises:
        OutputError: if the folder cannot be written to or the disk is full; what stood there before stays.
    """
    path = Path(path)
    with writing(path), tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        stage = Path(folder)
        yield stage / path.name
        for made in sorted(stage.iterdir(), key=lambda each: each.name == path.name):
            _replace(made, path.parent / made.name)


def _replace(made: Path, path: Path) -> None:
    """Move a file or a folder to `path`; only a folder that stood there must first step aside."""
    if made.is_dir() and path.is_dir():
        os.replace(path, made.with_name(f"{made.name}.old"))
    os.replace(made, path)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file, or of the names and hashes of all files in a folder, as 64 hexadecimal digits."""
    path, digest = Path(path), hashlib.sha256()
    if path.is_dir():
        for part in sorted(each for each in path.rglob("*") if each.is_file()):
            digest.update(f"{part.relative_to(path).as_posix()} {sha256(part)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
