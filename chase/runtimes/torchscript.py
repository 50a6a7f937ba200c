"""TorchScript: a frozen graph that needs torch, but none of the model's Python code."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from chase.artifact import Artifact
from chase.errors import CheckpointError, reason
from chase.runtimes.eager import TorchRuntime


@contextlib.contextmanager
def no_deprecation() -> Iterator[None]:
    """Silence about `torch.jit` being deprecated: it still works, and the user has asked for it by name."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)", category)
        yield


class TorchScript(TorchRuntime):
    """A frozen TorchScript file.

    Raises:
        CheckpointError: if the file is missing, truncated or no TorchScript archive.
    """

    formats: ClassVar[tuple[str, ...]] = ("torchscript",)

    def __init__(self, source: Artifact, *, device: torch.device, threads: int | None = None) -> None:
        module = _load(source.path, device)
        super().__init__(module, "torchscript", device=device, threads=threads, artifact=source)


def _load(path: Path, device: torch.device) -> nn.Module:
    try:
        with no_deprecation():
            module: nn.Module = torch.jit.load(str(path), map_location=device)
            return module.eval()
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a whole TorchScript file ({reason(error)}); export again") from error
