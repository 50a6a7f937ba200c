"""What a sparse training starts from: initial masks, the groups that may lose channels, and what is reachable."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

from chase.errors import RecipeError
from chase.registry import check_patterns
from chase.slimming import channel_groups
from chase.slimming.groups import Group, prunable
from chase.slimming.widths import grid_of, patterns_of
from chase.sparse.channels import floor_width, most_removable, removable
from chase.sparse.distributions import DISTRIBUTIONS, counts
from chase.sparse.masks import Masks, maskable
from chase.sparse.method import RANDOM, Method
from chase.sparse.saliency import INITIAL, Batch
from chase.sparse.update import random_masks

if TYPE_CHECKING:
    from chase.counting import Cost


def initial_masks(
    model: nn.Module,
    method: Method,
    *,
    example: Tensor | None = None,
    groups: tuple[Group, ...] | None = None,
    batch: Batch | None = None,
    seed: int = 0,
) -> Masks:
    """The masks a training starts from: exact counts, by the method's distribution at random or by a saliency.

    Raises:
        RecipeError: if channel_sparsity cannot be reached, or there is nothing to make sparse.
    """
    weights = maskable(model)
    if not weights:
        raise RecipeError(f"{type(model).__name__} has no convolution or linear layer to make sparse")
    masks = Masks.dense(model, _prunable_groups(model, method, example, groups))
    if method.initial_density < 1 and method.initial == RANDOM:
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        distribution = DISTRIBUTIONS[method.distribution]
        masks.weights = random_masks(counts(shapes, method.initial_density, distribution), weights, seed)
    elif method.initial_density < 1:
        keep = round(method.initial_density * masks.total)
        masks.weights = INITIAL[method.initial](model, keep, batch=batch, example=example)
    return masks


def _prunable_groups(
    model: nn.Module, method: Method, example: Tensor | None, groups: tuple[Group, ...] | None
) -> tuple[Group, ...]:
    if not method.prunes_channels:
        return ()
    if groups is None:
        if example is None:
            raise RecipeError("channel_sparsity > 0 needs example=, one input of the model, to trace its channels")
        groups = channel_groups(model, example.to(next(model.parameters()).device), freedoms=method.freedoms)
    check_layers(groups, method)
    chosen = candidates(groups, method)
    check_reachable(chosen, method)
    return chosen


def needed_cost(model: nn.Module, method: Method, example: Tensor | None, cost: Cost | None) -> Cost | None:
    """What a forward pass costs, where the method counts MACs.

    Raises:
        RecipeError: if it has to be traced and there is no `example`.
    """
    from chase.counting import cost as traced_cost

    if cost is not None or (method.executed_macs is None and method.normalise != "macs"):
        return cost
    if example is None:
        raise RecipeError("method.executed_macs and method.normalise=macs need example=, one input, to count MACs")
    return traced_cost(model, example.to(next(model.parameters()).device))


def check_macs(masks: Masks, method: Method, cost: Cost | None) -> None:
    """Refuse executed_macs below what the floors of all groups leave.

    Raises:
        RecipeError: with the nearest reachable value.
    """
    from chase.counting import macs_at_widths

    if cost is None or method.executed_macs is None:
        return
    dead = removable(masks.groups, floors(masks.groups, method), method.round_to)
    least = macs_at_widths(cost, masks.shapes_without(dead)) / cost.macs
    if method.executed_macs < least:
        raise RecipeError(
            f"executed_macs {method.executed_macs} cannot be reached with min_channel_ratio "
            f"{method.min_channel_ratio} on a width grid of {method.round_to}: the least is {least:.4f}"
        )


def check_layers(groups: tuple[Group, ...], method: Method) -> None:
    """Refuse a pattern of layer names that fits none of a model's groups.

    Raises:
        RecipeError: with the nearest name.
    """
    layers = {layer for group in groups for layer in group.layers}
    check_patterns("method.keep", method.keep, layers)
    check_patterns("method.round_to", patterns_of(method.round_to), layers)


def candidates(groups: tuple[Group, ...], method: Method) -> tuple[Group, ...]:
    """The groups that a method takes channels from: none where it removes none."""
    if not method.prunes_channels:
        return ()
    return prunable(groups, prune_skip=method.prune_skip, keep=method.keep)


def floors(groups: tuple[Group, ...], method: Method) -> dict[str, int]:
    """The fewest channels that each group keeps (paper §3).

    A target in MACs counts as the channel sparsity 1 − √MACs that reaches it evenly: MACs go with the square of widths.
    """
    target, ratio = method.channel_sparsity, method.min_channel_ratio
    if method.executed_macs is not None:
        target = 1 - math.sqrt(method.executed_macs)
    return {group.name: floor_width(group.size, channel_sparsity=target, ratio=ratio) for group in groups}


def reachable(groups: tuple[Group, ...], method: Method) -> float:
    """The highest channel sparsity that the floors and the width grid allow."""
    most = most_removable(groups, floors(groups, method), method.round_to)
    return most / max(1, sum(group.size for group in groups))


def check_reachable(groups: tuple[Group, ...], method: Method) -> None:
    """Refuse a channel sparsity that the floors make unreachable.

    Raises:
        RecipeError: with the nearest reachable value.
    """
    channels = sum(group.size for group in groups)
    if not channels:
        raise RecipeError(
            f"channel_sparsity {method.channel_sparsity} cannot be reached: no channel may leave; "
            "see `chase inspect`, or set prune_skip or fewer keep patterns"
        )
    most = reachable(groups, method)
    block = max(grid_of(method.round_to, group) for group in groups)
    if round(method.channel_sparsity * channels) > round(most * channels) + block // 2:
        raise RecipeError(
            f"channel_sparsity {method.channel_sparsity} cannot be reached on a width grid of {method.round_to} with "
            f"min_channel_ratio {method.min_channel_ratio}: the nearest is {most:.4f}"
        )
