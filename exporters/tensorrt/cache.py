"""The timing cache: what TensorRT measured of its kernels, so that it builds faster, and the same engine, next time."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chase.errors import CheckpointError, ExportError, OutputError
from chase.files import atomic
from chase.runtimes.bindings import log_of


def cache_file(folder: Path, gpu: str, version: str) -> Path:
    """The file in `folder` for one GPU and one version of TensorRT: what was measured is true of no other."""
    return folder / f"{re.sub('[^a-z0-9]+', '-', gpu.lower())}.tensorrt-{version}.timing"


@contextlib.contextmanager
def timing_cache(trt: Any, config: Any, path: Path | None) -> Iterator[None]:
    """Builds inside the block use the cache at `path` and are added to it at the end; without a path, nothing is kept.

    Of two builds at a time, the later one decides what the file holds: that costs time at the next build, and no more.

    Raises:
        CheckpointError: if the file is no timing cache for this GPU and this version of TensorRT.
        OutputError: if it cannot be read or written.
    """
    if path is None:
        yield
        return
    cache = config.create_timing_cache(_content(path))
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        reason = log_of(trt).reason()
        raise CheckpointError(
            f"{path} is no timing cache of this GPU and TensorRT {trt.__version__} ({reason}); delete it"
        )
    yield
    if (cache := config.get_timing_cache()) is None:
        raise ExportError(f"TensorRT gives no timing cache to be kept in {path}; build without one")
    with atomic(path) as temporary:
        temporary.write_bytes(bytes(cache.serialize()))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}; name another folder for the timing cache") from error
