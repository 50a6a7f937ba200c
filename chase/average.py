"""The moving average of a network's weights, without a host sync (torch's AveragedModel has one a step)."""

from __future__ import annotations

import copy

import torch
from torch import nn

from chase.slimming.surgery import tensors_of


class Average:
    """A copy of a network whose parameters and buffers follow it: a ← d·a + (1 − d)·θ after each step; counters are
    copied. `module` is the copy; `decay` is d."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self.follow(model)

    def follow(self, model: nn.Module) -> None:
        """List the tensors of both again, after they have been replaced."""
        pairs = list(zip(tensors_of(self.module).values(), tensors_of(model).values(), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step's weights into the average."""
        ours, theirs = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(ours, [tensor.detach() for tensor in theirs], 1 - self.decay)
        if self._copied:
            ours, theirs = zip(*self._copied, strict=True)
            torch._foreach_copy_(ours, theirs)
