"""One-shot channel pruning: from a trained network to masks with some of its channels gone, all at once."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from chase.errors import RecipeError
from chase.sparse.masks import Masks
from chase.sparse.methods import make
from chase.sparse.plan import Event
from chase.sparse.pruner import Pruner
from chase.sparse.start import needed_cost

Batches = Iterable[tuple[Tensor, Tensor]]
PLAIN: dict[str, Any] = {"sparsity": 0.0, "min_channel_ratio": 0.0, "round_to": 1}


def one_shot(
    model: nn.Module,
    masks: Masks,
    share: float,
    *,
    batches: Batches = (),
    example: Tensor | None = None,
    seed: int = 0,
    **settings: Any,
) -> Masks:
    """Masks without the channels that a criterion holds for the least, ranked over all layers (paper Table 2).

    Neither the model nor the masks given change; nothing is trained.

    Args:
        model: the trained network.
        masks: its masks; `Masks.dense(model, groups)` for a dense one. Channels of their groups may leave.
        share: of the channels that live now, in [0, 1).
        batches: images and labels on the model's device, for criteria that look at gradients.
        example: one input [1, ...], where normalise="macs" has to count them.
        seed: of random criteria.
        settings: of `Method`, as far as they choose channels: criterion (umm), aggregate, normalise, channel_scope;
            min_channel_ratio (0: only the last channel of a group stays); round_to (1: no width grid).

    Raises:
        RecipeError: if the share or a setting is out of range, no channel may leave, or the criterion needs something
            that the network or the caller does not have.
        UnknownName: for a criterion or another name that is not known.
    """
    if not 0 <= share < 1:
        raise RecipeError(f"the share of channels to prune must lie in [0, 1), not {share}")
    if not masks.groups:
        raise RecipeError("no channel may leave: the masks have no groups; see `chase inspect`")
    removed = masks.removed + round(share * (masks.channels - masks.removed))
    target = min(removed, masks.channels - 1) / masks.channels
    method = make("static", **{**PLAIN, **settings, "channel_sparsity": target})
    pruned, trial = masks.clone(), copy.deepcopy(model).eval()
    masks.apply_(trial)
    cost = needed_cost(trial, method, example, None)
    pruner = Pruner(trial, method, pruned, cost=cost, seed=seed)
    if pruner.criterion.gradients:
        _observe(pruner, trial, batches)
    pruner.run(Event(step=1, channel_sparsity=target), progress=1.0)
    return pruned


def _observe(pruner: Pruner, model: nn.Module, batches: Batches) -> None:
    """Gather the gradients of the mean cross-entropy over each batch."""
    for images, labels in batches:
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(nn.functional.cross_entropy(model(images), labels))
        pruner.observe()
