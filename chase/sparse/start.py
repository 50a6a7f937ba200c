"""What a sparse training starts from: initial masks, the groups that may lose channels, and what is reachable."""

from __future__ import annotations

from torch import Tensor, nn

from chase.errors import RecipeError
from chase.slimming import channel_groups
from chase.slimming.groups import Group, prunable
from chase.slimming.widths import grid_of
from chase.sparse.channels import floor_width, most_removable
from chase.sparse.distributions import DISTRIBUTIONS, counts
from chase.sparse.masks import Masks, maskable
from chase.sparse.methods import Method
from chase.sparse.update import random_masks


def initial_masks(
    model: nn.Module,
    method: Method,
    *,
    example: Tensor | None = None,
    groups: tuple[Group, ...] | None = None,
    seed: int = 0,
) -> Masks:
    """The masks a training starts from: exact counts by the method's distribution, at random positions.

    Raises:
        RecipeError: if channel_sparsity cannot be reached, or there is nothing to make sparse.
    """
    weights = maskable(model)
    if not weights:
        raise RecipeError(f"{type(model).__name__} has no convolution or linear layer to make sparse")
    masks = Masks.dense(model, _prunable_groups(model, method, example, groups))
    if method.sparsity:
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        masks.weights = random_masks(counts(shapes, method.density, DISTRIBUTIONS[method.distribution]), weights, seed)
    return masks


def _prunable_groups(
    model: nn.Module, method: Method, example: Tensor | None, groups: tuple[Group, ...] | None
) -> tuple[Group, ...]:
    if method.channel_sparsity == 0:
        return ()
    if groups is None:
        if example is None:
            raise RecipeError("channel_sparsity > 0 needs example=, one input of the model, to trace its channels")
        groups = channel_groups(model, example.to(next(model.parameters()).device), freedoms=method.freedoms)
    chosen = candidates(groups, method)
    check_reachable(chosen, method)
    return chosen


def candidates(groups: tuple[Group, ...], method: Method) -> tuple[Group, ...]:
    """The groups that a method takes channels from: none where its channel_sparsity is 0."""
    if method.channel_sparsity == 0:
        return ()
    return prunable(groups, prune_skip=method.prune_skip, keep=method.keep)


def floors(groups: tuple[Group, ...], method: Method) -> dict[str, int]:
    """The fewest channels that each group keeps (paper §3)."""
    target, ratio = method.channel_sparsity, method.min_channel_ratio
    return {group.name: floor_width(group.size, channel_sparsity=target, ratio=ratio) for group in groups}


def reachable(groups: tuple[Group, ...], method: Method) -> float:
    """The highest channel sparsity that the floors and the width grid allow."""
    removable = most_removable(groups, floors(groups, method), method.round_to)
    return removable / max(1, sum(group.size for group in groups))


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
