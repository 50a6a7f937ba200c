"""Slimming: from a big sparse network to a small dense-shaped one that computes the same function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from chase.registry import check_patterns
from chase.slimming.certificate import certify, in_precision
from chase.slimming.groups import Group, layer_name
from chase.slimming.surgery import Plan, cuts, replaced, slim_copy, tensors_of, without
from chase.slimming.widths import Grid, check_grid, filled, grid_of, patterns_of
from chase.tracing import Example

if TYPE_CHECKING:
    from chase.sparse.masks import Masks


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
    model: nn.Module, masks: Masks, *, example: Example, round_to: Grid = 8, samples: Tensor | None = None
) -> nn.Module:
    """The slim network that computes what `model` under `masks` computes; see `slimmed` for its certificate."""
    return slimmed(model, masks, example=example, round_to=round_to, samples=samples).model


def slimmed(
    model: nn.Module, masks: Masks, *, example: Example, round_to: Grid = 8, samples: Tensor | None = None
) -> Slimmed:
    """Cut the dead channels out of a copy of `model`, and prove that nothing else changed.

    Args:
        model: the trained network; it is left as it is.
        masks: its masks, such as `sparsifier.masks`.
        example: an input [b, ...], or a tuple of inputs; random inputs of its shape are part of the proof.
        round_to: the width grid, one number or one for each pattern of layer names. Widths are rounded up to it by
            keeping the best of the dead channels, which is exact.
        samples: real inputs [n, ...] for the proof.

    Raises:
        EquivalenceError: if slim and masked differ by more than 1e-10 relative in float64.
        RecipeError: if round_to is not a width grid, or a pattern in it fits no layer.
    """
    small, plan, kept = cut(model, masks, round_to=round_to)
    masked = replaced(model, lambda name, tensor: in_precision(masks.masked(name, tensor), torch.float64))
    exact = unrounded(masked, masks, kept)
    return Slimmed(small, plan, kept, certify(masked, small, example=example, samples=samples, exact=exact))


def cut(model: nn.Module, masks: Masks, *, round_to: Grid = 1) -> tuple[nn.Module, Plan, dict[str, Tensor]]:
    """A copy of `model` without its dead channels, not proven yet; its plan, and the units that each group keeps.

    It takes as much memory as the slim network and the largest tensor of the full one.

    Raises:
        RecipeError: if round_to is not a width grid, or a pattern in it fits no layer.
    """
    check_grid(round_to)
    kept = kept_units(model, masks, round_to)
    lost, folded = cuts(masks.groups, kept), folds(model, masks, kept)
    dead = masks.remaining(kept, lost)

    def change(name: str, tensor: Tensor) -> Tensor | None:
        gone = lost.get(name, [])
        full = (tensor + folded[name]).to(tensor.dtype) if name in folded else tensor
        new = without(full, gone) if gone else full.clone()
        if name in masks.weights:
            new.mul_(without(masks.weights[name], gone).to(new))
        return dead.silence_(name, new)

    small, plan = slim_copy(model, change)
    return small, plan, kept


def kept_units(model: nn.Module, masks: Masks, round_to: Grid = 1) -> dict[str, Tensor]:
    """The units [n] that stay of each group: all living ones, and dead ones that the width grid and grouped
    convolutions ask for, those with the largest weights first.

    Raises:
        RecipeError: if a pattern of round_to fits no layer.
    """
    layers = {layer_name(name) for name in masks.weights} | {name for group in masks.groups for name in group.layers}
    check_patterns("round_to", patterns_of(round_to), layers)
    tensors = tensors_of(model)
    return {
        group.name: filled(
            group, masks.alive[group.name], grid=grid_of(round_to, group), scores=_magnitudes(group, tensors)
        ).nonzero().flatten()
        for group in masks.groups
    }  # fmt: skip


def _magnitudes(group: Group, tensors: Mapping[str, Tensor]) -> Tensor:
    """Σ|θ| over the rows that make each unit, masks aside, float32 [size]."""
    total = torch.zeros(group.size)
    for part in group.slices:
        if part.tensor in group.producers and not part.reads:
            weight = tensors[part.tensor].detach().transpose(0, part.dim).flatten(1)
            rows = torch.linalg.vector_norm(weight, 1, dim=1)  # |θ| as a whole would take the weight's memory
            total.index_add_(0, part.units, rows.float().cpu()[part.positions])
    return torch.nan_to_num(total)


def folds(model: nn.Module, masks: Masks, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the units that leave add to biases, float64 by name [out]: the constant they arrive as, times the weights
    there."""
    tensors = tensors_of(model)
    added: dict[str, Tensor] = {}
    for group in masks.groups:
        leaves = torch.ones(group.size, dtype=torch.bool)
        leaves[kept[group.name]] = False
        for part in group.slices:
            if part.reads and part.value and part.bias is not None:
                weight = masks.masked(part.tensor, tensors[part.tensor].detach())
                rows = part.block.rows(weight) if part.block else weight
                gone = part.positions[leaves[part.units]].to(weight.device)
                constant = part.value * rows.index_select(part.dim, gone).double().flatten(1).sum(1)
                total = added.setdefault(part.bias, torch.zeros_like(tensors[part.bias].detach(), dtype=torch.float64))
                (part.block.rows(total) if part.block else total).add_(constant)
    return added


def unrounded(masked: nn.Module, masks: Masks, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The biases that constants are folded into, float64 by name: in the slim network they are rounded to its type."""
    tensors, lost = tensors_of(masked), cuts(masks.groups, kept)
    added = folds(masked, masks, kept)
    return {name: without(tensors[name].detach() + fold, lost.get(name, [])) for name, fold in added.items()}


def sliced_masks(masks: Masks, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weight masks of the slim network, cut as its weights are."""
    lost = cuts(masks.groups, kept)
    return {name: without(mask, lost[name]) if name in lost else mask for name, mask in masks.weights.items()}
