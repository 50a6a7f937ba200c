"""Eager: the network as PyTorch runs it."""

from __future__ import annotations

import contextlib
import copy
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from chase.runtimes.base import torch_settings

if TYPE_CHECKING:
    from typing_extensions import Self


class TorchRuntime:
    """A module that torch runs; takes over a module that nobody else uses."""

    def __init__(self, module: nn.Module, *, name: str, device: torch.device, threads: int | None) -> None:
        self.name = name
        self.provider = str(device)
        self.device = device
        self._module = module
        self._threads = threads
        self._settings = contextlib.ExitStack()

    def run(self, x: Tensor) -> Tensor:
        """The logits [b, classes] of x [b, c, h, w]."""
        with torch.inference_mode():
            logits: Tensor = self._module(x)
            return logits

    def __enter__(self) -> Self:
        self._settings.enter_context(torch_settings(self._threads))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._settings.close()


class Eager(TorchRuntime):
    """A copy of an nn.Module, in eval mode; the caller's module is left as it is."""

    formats: ClassVar[tuple[str, ...]] = ("module",)

    def __init__(self, source: nn.Module, *, device: torch.device, threads: int | None = None) -> None:
        module = copy.deepcopy(source).to(device).eval()
        super().__init__(module, name="eager", device=device, threads=threads)
