"""ExecuTorch, on the CPU, with XNNPACK."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from chase.artifact import Artifact
from chase.errors import CheckpointError, RecipeError, reason
from chase.packages import require
from chase.runtimes.base import BaseRuntime

INSTALL = "'chase-sparse[executorch]'"


class ExecuTorch(BaseRuntime):
    """An ExecuTorch program (`.pte`).

    Its pool of threads is one for the whole process. Without `threads` it gets as many as torch has.

    Raises:
        CheckpointError: if the file is missing, truncated or foreign.
        RecipeError: if the device is not the CPU.
        MissingDependency: if executorch is not installed.
    """

    formats: ClassVar[tuple[str, ...]] = ("executorch",)

    def __init__(self, source: Artifact, *, device: torch.device, threads: int | None = None) -> None:
        if device.type != "cpu":
            raise RecipeError(f"executorch runs on the CPU here, not on {device}; choose device cpu")
        with executorch(purpose="running an ExecuTorch program") as runtime:
            _set_threads(threads or torch.get_num_threads())
            self._program, self._method = _load(runtime, source)
        provider = str(source.built_for.get("backend", "cpu"))
        if portable := source.built_for.get("portable"):
            provider += f", portable kernels for {len(portable)} operators"
        super().__init__("executorch", provider=provider, device=device, threads=threads, artifact=source)

    def compute(self, x: Tensor) -> Tensor:
        """The logits of an input that fits the file."""
        logits: Tensor = self._method.execute([x.contiguous()])[0]  # it reads other layouts as if they were this one
        return logits

    @staticmethod
    def check() -> None:
        """Ask for the package.

        Raises:
            MissingDependency: if it is not installed.
        """
        with executorch(purpose="running an ExecuTorch program"):
            pass


@contextlib.contextmanager
def executorch(*, purpose: str) -> Iterator[Any]:
    """The module executorch.runtime, and silence about what it and its parts say when they are imported and used.

    Raises:
        MissingDependency: if it is not installed.
    """
    logger = logging.getLogger("torch.utils._pytree")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # what fails is raised as well
            warnings.filterwarnings("ignore", r"(read_text|open_text|read_binary) is deprecated", DeprecationWarning)
            warnings.filterwarnings("ignore", "This API is experimental")
            yield require("executorch.runtime", purpose=purpose, install=INSTALL)
    finally:
        logger.disabled = before


def _set_threads(count: int) -> None:
    from executorch.extension.pybindings import portable_lib

    if portable_lib._threadpool_get_thread_count() != count:
        portable_lib._unsafe_reset_threadpool(count)


def _load(runtime: Any, source: Artifact) -> tuple[Any, Any]:
    """The program, whose memory the method reads as long as it runs, and the method."""
    name = source.path.name
    try:
        program = runtime.Runtime.get().load_program(source.path.read_bytes())
        method = program.load_method("forward") if "forward" in program.method_names else None
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{name} is not a whole ExecuTorch program ({reason(error)}); export again") from error
    if method is None:
        raise CheckpointError(f"{name} has no method forward; export again")
    return program, method
