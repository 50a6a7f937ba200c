"""AOTInductor export: the network compiled to native code, for one kind of processor and one version of torch."""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from chase.errors import ExportError, reason
from chase.exporters.compression import deflated
from chase.exporters.job import Job, exported
from chase.runtimes.aoti import built_here, loader
from chase.runtimes.base import resolve_device
from chase.runtimes.compiled import find_compiler, no_logging
from chase.tracing import quiet


def write_aoti(job: Job, path: Path, *, device: str = "cpu", compress: bool = False) -> dict[str, Any]:
    """Write a package of native code that takes any batch size; gives what it is bound to. `compress` deflates it.

    Raises:
        ExportError: if torch.export cannot follow the model, or the code cannot be generated or compiled.
        MissingDependency: if this torch has no AOTInductor, or the compiler or the device is not here.
    """
    place = resolve_device(device)
    loader()
    find_compiler(purpose="AOTInductor")
    program = exported(copy.deepcopy(job.model).to(place), job.example.to(place))
    settings = {
        "aot_inductor.precompile_headers": False,  # they would stay in a folder of their own
        "cpp.dynamic_threads": True,  # else the number of threads of today is compiled in
    }
    try:
        with _private_cache(), quiet(), no_logging():
            torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)
    except Exception as error:  # the compiler's, the linker's and torch's own
        name = type(job.model).__name__
        raise ExportError(f"AOTInductor cannot compile {name}: {reason(error)}") from error
    if compress:
        deflated(path)
    return {"built_for": built_here(place)}


@contextlib.contextmanager
def _private_cache() -> Iterator[None]:
    """A folder of its own for what the compiler leaves behind."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            del os.environ[name]
            if before is not None:
                os.environ[name] = before
