"""How much a single weight is worth: a score decides what is pruned (lowest first) and grown (highest first).

A score maps `(weight, grad, generator)` to a tensor of the weight's shape, which may be one of its arguments; its
absolute value counts. Add one with `SCORES["mine"] = function`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from chase.registry import Registry

Score = Callable[[Tensor, Tensor, torch.Generator], Tensor]
LAMBDA = 0.01


def magnitude(weight: Tensor, grad: Tensor, generator: torch.Generator) -> Tensor:
    """w, so by |w| (paper §3, global parameter exploration)."""
    return weight


def gradient(weight: Tensor, grad: Tensor, generator: torch.Generator) -> Tensor:
    """The dense gradient, so by |∂L/∂w|, as RigL grows (paper §3)."""
    return grad


def magnitude_and_gradient(weight: Tensor, grad: Tensor, generator: torch.Generator) -> Tensor:
    """|w| + λ|∂L/∂w| with λ = 0.01, as MEST drops (Yuan et al. 2021)."""
    return weight.abs() + LAMBDA * grad.abs()


def random(weight: Tensor, grad: Tensor, generator: torch.Generator) -> Tensor:
    """A uniform draw, as SET grows."""
    return torch.rand(weight.shape, generator=generator).to(weight.device)


SCORES: Registry[Score] = Registry(
    "score",
    {
        "magnitude": magnitude,
        "gradient": gradient,
        "magnitude+gradient": magnitude_and_gradient,
        "random": random,
    },
)
