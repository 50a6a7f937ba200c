"""Eager: the network as PyTorch runs it, and what all runtimes on torch share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from chase.runtimes.base import BaseRuntime


class TorchRuntime(BaseRuntime):
    """What torch runs: a module, or anything else to be called with a tensor, that nobody else uses."""

    def __init__(self, module: Callable[[Tensor], Any], name: str, *, device: torch.device, **given: Any) -> None:
        super().__init__(name, provider=str(device), device=device, **given)
        self._module = module

    def compute(self, x: Tensor) -> Tensor:
        """The logits [b, classes] of x [b, c, h, w]."""
        with torch.inference_mode():
            logits: Tensor = self._module(x)
            return logits


class Eager(TorchRuntime):
    """A copy of an nn.Module, in eval mode; the caller's module is left as it is."""

    formats: ClassVar[tuple[str, ...]] = ("module",)

    def __init__(self, source: nn.Module, *, device: torch.device, threads: int | None = None) -> None:
        module = copy.deepcopy(source).to(device).eval()
        super().__init__(module, "eager", device=device, threads=threads)
