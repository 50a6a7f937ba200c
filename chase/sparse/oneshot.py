"""One-shot channel pruning: from a trained network to masks with some of its channels gone, all at once."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from chase.errors import RecipeError
from chase.slimming.widths import Grid, check_grid
from chase.sparse.channels import AGGREGATES, CHANNEL_SCORES, floor_width, group_scores, select_channels
from chase.sparse.masks import Masks

Batches = Iterable[tuple[Tensor, Tensor]]


def one_shot(
    model: nn.Module,
    masks: Masks,
    share: float,
    *,
    criterion: str = "umm",
    aggregate: str = "mean",
    min_channel_ratio: float = 0.0,
    round_to: Grid = 1,
    batches: Batches = (),
    seed: int = 0,
) -> Masks:
    """Masks without the channels that a criterion holds for the least, ranked over all layers (paper Table 2).

    Neither the model nor the masks given change; nothing is trained afterwards.

    Args:
        model: the trained network.
        masks: its masks; `Masks.dense(model, groups)` for a dense one. Channels of their groups may leave.
        share: of the channels that live now, in [0, 1).
        criterion: a channel criterion, lowest first.
        aggregate: how the scores of the rows that make one coupled channel become its score.
        min_channel_ratio: β: each group keeps at least ⌊(1 − share) · β · size⌋ units, and always one.
        round_to: the width grid that channels leave on; the share is met to the nearest block.
        batches: images and labels for criteria that need gradients.
        seed: of random criteria.

    Raises:
        RecipeError: if `share` is out of range or no channel may leave.
        UnknownName: for a criterion or an aggregate that is not known.
    """
    check_grid(round_to)
    if not 0 <= share < 1:
        raise RecipeError(f"the share of channels to prune must lie in [0, 1), not {share}")
    if not masks.groups:
        raise RecipeError("no channel may leave: the masks have no groups; see `chase inspect`")
    pruned, living = masks.clone(), masks.channels - masks.removed
    leaving = select_channels(
        pruned.groups,
        _scores(model, pruned, criterion, aggregate, batches, seed),
        pruned.alive,
        remove=round(share * living),
        floors={
            group.name: floor_width(group.size, channel_sparsity=share, ratio=min_channel_ratio)
            for group in masks.groups
        },
        grid=round_to,
    )
    for name, units in leaving.items():
        pruned.alive[name] &= ~units
    pruned.bury()
    return pruned


def _scores(
    model: nn.Module, masks: Masks, criterion: str, aggregate: str, batches: Batches, seed: int
) -> dict[str, Tensor]:
    weights = dict(model.named_parameters())
    return {
        group.name: group_scores(
            group,
            CHANNEL_SCORES[criterion],
            weights,
            masks.weights,
            aggregate=AGGREGATES[aggregate],
            shapes=masks.dense_shapes,
        )
        for group in masks.groups
    }
