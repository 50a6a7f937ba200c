"""Slimming: from a big sparse network to a small dense-shaped one that computes the same function."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from chase.errors import EquivalenceError, RecipeError
from chase.slimming.surgery import Plan, cut_, cut_positions, without
from chase.tracing import evaluating

if TYPE_CHECKING:
    from chase.sparse.masks import Masks

TOLERANCE = 1e-10
"""Largest relative error of slim against masked, both in float64."""


@dataclass(frozen=True)
class Slimmed:
    """A slim network and how it came about.

    `kept` holds the units [n] that each group keeps; `certificate` is what `certify` measured.
    """

    model: nn.Module
    plan: Plan
    kept: dict[str, Tensor]
    certificate: dict[str, Any]


def slim(
    model: nn.Module, masks: Masks, *, example: Tensor, round_to: int = 8, samples: Tensor | None = None
) -> nn.Module:
    """The slim network that computes what `model` under `masks` computes; see `slimmed` for its certificate."""
    return slimmed(model, masks, example=example, round_to=round_to, samples=samples).model


def slimmed(
    model: nn.Module, masks: Masks, *, example: Tensor, round_to: int = 8, samples: Tensor | None = None
) -> Slimmed:
    """Cut the dead channels out of a copy of `model`, and prove that nothing else changed.

    Args:
        model: the trained network; it is left as it is.
        masks: its masks, such as `sparsifier.masks`.
        example: an input [b, ...]; random inputs of its shape are part of the proof.
        round_to: the width grid. Widths are rounded up to it by keeping dead channels, which is exact.
        samples: real inputs [n, ...] for the proof.

    Raises:
        EquivalenceError: if slim and masked differ by more than 1e-10 relative in float64.
    """
    if round_to < 1:
        raise RecipeError(f"round_to must be at least 1, not {round_to}")
    masked = copy.deepcopy(model)
    masks.apply_(masked)
    kept = {name: kept_units(alive, round_to) for name, alive in masks.alive.items()}
    small = copy.deepcopy(masked)
    plan = cut_(small, cut_positions(masks.groups, kept))
    return Slimmed(small, plan, kept, certify(masked, small, example=example, samples=samples))


def kept_units(alive: Tensor, round_to: int) -> Tensor:
    """The units [n] that stay: all living ones, and the first dead ones that fill the width grid; never none."""
    living, dead = alive.nonzero().flatten(), (~alive).nonzero().flatten()
    width = -(-max(1, len(living)) // round_to) * round_to
    return torch.cat([living, dead[: width - len(living)]]).sort().values


def certify(masked: nn.Module, small: nn.Module, *, example: Tensor, samples: Tensor | None = None) -> dict[str, Any]:
    """The relative error max|Δ| / max|y| of slim against masked in float64, on random and on real inputs.

    Raises:
        EquivalenceError: if it exceeds `TOLERANCE` or is not finite.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = {"random": torch.randn(3, *example.shape[1:], generator=generator)}
    if samples is not None:
        inputs["real"] = samples
    try:
        errors = {kind: _relative_error(masked, small, x.cpu()) for kind, x in inputs.items()}
    except RuntimeError as error:  # the forward pass says x.view(-1, 1024), or x.float()
        raise EquivalenceError(
            "slim and masked cannot be compared in float64; the model's forward pass may fix a size or a type: "
            + str(error).strip().splitlines()[0]
        ) from error
    worst = max(errors.values())
    certificate = {
        "max_rel": worst,
        "tolerance": TOLERANCE,
        "dtype": "float64",
        "errors": errors,
        "samples": {kind: len(x) for kind, x in inputs.items()},
    }
    if not all(error <= TOLERANCE for error in errors.values()):  # one that is not a number fails as well
        raise EquivalenceError(
            f"the slim network differs from the masked one by {worst:.2e} relative "
            f"(allowed: {TOLERANCE:.0e}); nothing was written. Report the model's architecture"
        )
    return certificate


@torch.no_grad()
def _relative_error(masked: nn.Module, small: nn.Module, x: Tensor) -> float:
    outputs = []
    for model in (masked, small):
        with evaluating(copy.deepcopy(model).cpu().double()) as exact:
            outputs.append(torch.cat([exact(part.double()) for part in (x[:1], x[1:]) if len(part)]))
    reference, ours = outputs
    return float((reference - ours).abs().max() / reference.abs().max().clamp(min=1e-300))


def sliced_masks(masks: Masks, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weight masks of the slim network, cut as its weights are."""
    gone = cut_positions(masks.groups, kept)
    sliced = dict(masks.weights)
    for (name, dim), positions in gone.items():
        if name in sliced:
            sliced[name] = without(sliced[name], dim, positions)
    return sliced
