"""What every runtime promises, and the few things that they share."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from chase.errors import MissingDependency, RecipeError

if TYPE_CHECKING:
    from typing_extensions import Self


class Runtime(Protocol):
    """Runs one network or file; a context manager that holds its memory and settings while it is open.

    `provider` says what really computes, such as "cpu", "cuda:0" or "CPUExecutionProvider".
    """

    name: str
    provider: str
    device: torch.device

    def run(self, x: Tensor) -> Tensor:
        """The logits [b, classes] of x [b, c, h, w], both float32 on `device`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class RuntimeType(Protocol):
    """An entry of RUNTIMES: opens a source whose format is one of `formats`.

    The source is an nn.Module for the format "module" and the path of a file for every other one.
    """

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that it can run."""
        ...

    def __call__(self, source: Any, *, device: torch.device, threads: int | None) -> Runtime: ...


def resolve_device(device: torch.device | str) -> torch.device:
    """The device with its index, checked to be there.

    Raises:
        RecipeError: if it is not a device's name, or neither a CPU nor a CUDA device.
        MissingDependency: if this machine has no such GPU.
    """
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise RecipeError(f"no device named {str(device)!r}; known: cpu, cuda, cuda:0, …") from error
    if found.type == "cpu":
        return torch.device("cpu")
    if found.type != "cuda":
        raise RecipeError(f"no runtime works on {found.type!r}; choose cpu or cuda")
    index = found.index or 0
    if index >= torch.cuda.device_count():
        present = torch.cuda.device_count()
        raise MissingDependency(f"no device {device}: torch finds {present} CUDA GPUs here; choose device cpu")
    return torch.device("cuda", index)


@contextlib.contextmanager
def torch_settings(threads: int | None = None) -> Iterator[None]:
    """Torch on `threads` CPU threads (None: as it is) and with fp32 meaning fp32: no TF32; put back after.

    Raises:
        RecipeError: if `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise RecipeError(f"threads is {threads}; it must be 1 or more")
    backends: Any = torch.backends
    precisions = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
    before = torch.get_num_threads(), [entry.fp32_precision for entry in precisions]
    try:
        torch.set_num_threads(threads or before[0])
        for entry in precisions:
            entry.fp32_precision = "ieee"
        yield
    finally:
        torch.set_num_threads(before[0])
        for entry, precision in zip(precisions, before[1], strict=True):
            entry.fp32_precision = precision


def require(package: str, *, purpose: str, install: str) -> Any:
    """The imported package.

    Raises:
        MissingDependency: if it is not installed or cannot be loaded.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependency(f"{purpose} needs the package {package}; run: pip install {install}") from error


def reason(error: BaseException) -> str:
    """The first line of what went wrong at the root of `error`, for use inside a one-line message."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
