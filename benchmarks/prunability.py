"""Prunability: accuracy after one-shot channel pruning by each criterion, without fine-tuning (paper Table 2)."""

from __future__ import annotations

import copy
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from chase.checkpoint import Network
from chase.data import Split
from chase.data.split import stratified
from chase.errors import RecipeError
from chase.recipe import Recipe
from chase.slimming.groups import prunable
from chase.slimming.stage import recipe_of, stored_masks
from chase.slimming.tracer import channel_groups
from chase.sparse.criteria import CHANNEL_SCORES
from chase.sparse.masks import Masks
from chase.sparse.oneshot import one_shot
from chase.training import evaluate

SHARES = (0.1, 0.2, 0.3)
DRAWS = 5  # of criteria that are random
RANDOM = ("random",)
BATCHES, BATCH = 8, 64  # what criteria that need gradients see


@dataclass(frozen=True, kw_only=True)
class Images:
    """What a network is measured on, which split of the data that is, and the images it was trained on."""

    name: str
    split: Split
    train: Split

    @classmethod
    def of(cls, recipe: Recipe, train: Split, test: Split, *, limit: int | None = None) -> Images:
        """Out of the training and the test images: the validation split where the recipe holds one out, so that the
        test split stays unseen; else the test split. Of more than `limit` images, so many from all over it.

        Raises:
            RecipeError: if `limit` is below 1.
        """
        rest, held = stratified(train.labels, recipe.data.validation, recipe.training.seed)
        name, split = ("validation", train.subset(held)) if len(held) else ("test", test)
        if limit is not None:
            if limit < 1:
                raise RecipeError(f"{limit} images are too few to measure accuracy on; leave the limit out for all")
            split = split.subset(torch.linspace(0, len(split) - 1, min(limit, len(split))).long())
        return cls(name=name, split=split, train=train.subset(rest))


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What is left after a share of the living channels left by a criterion: top-1 accuracies in percent, one for each
    draw, the channel sparsity then, and the groups that `collapsed` to one channel (in any draw)."""

    criterion: str
    share: float
    channel_sparsity: float
    accuracies: tuple[float, ...]
    collapsed: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float:
        """The mean over the draws."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float | None:
        """The standard deviation over the draws (n - 1); None of a single one."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Prunability:
    """Accuracies of one network, pruned and not, on `images` images of a split; `channels` of it may leave. `left_out`
    are criteria that this network has no scores for, with the reason."""

    split: str
    images: int
    channels: int
    unpruned: float
    rows: tuple[Pruned, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def shares(self) -> list[float]:
        """The shares of channels that were pruned."""
        return list(dict.fromkeys(row.share for row in self.rows))

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        facts = {"split": self.split, "images": self.images, "channels": self.channels, "unpruned": self.unpruned}
        return facts | {"rows": [_plain(row) for row in self.rows], "left_out": dict(self.left_out)}


def _plain(row: Pruned) -> dict[str, Any]:
    facts = {"criterion": row.criterion, "share": row.share, "channel_sparsity": row.channel_sparsity}
    measured = {"accuracy": row.accuracy, "std": row.std, "accuracies": list(row.accuracies)}
    return facts | measured | {"collapsed": list(row.collapsed)}


def prunability(
    network: Network,
    images: Images,
    *,
    criteria: Sequence[str] = (),
    shares: Sequence[float] = SHARES,
    draws: int = DRAWS,
    min_channel_ratio: float = 0.0,
    device: torch.device | str = "cpu",
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Prunability:
    """Prune a trained network at once by each criterion, and measure what is left of its accuracy.

    The default is every criterion that the network has scores for (Network Slimming, for one, needs norms).

    The channels that may leave are those of the recipe it was trained by; channels that its training removed stay
    removed, and `shares` are of the others. Each group keeps at least one channel, as in the paper's Table 2, and more
    with `min_channel_ratio` (β of `Method`). Random criteria are drawn `draws` times.

    Raises:
        RecipeError: if a setting is out of range, no channel may leave, or there are no scores by a criterion.
        UnknownName: for an unknown criterion.
    """
    if odd := [share for share in shares if not 0 < share < 1]:
        raise RecipeError(f"the share of channels to prune must lie in (0, 1), not {odd[0]}")
    if draws < 1:
        raise RecipeError(f"{draws} draws are too few; 5 are usual")
    if not 0 <= min_channel_ratio <= 1:
        raise RecipeError(f"min_channel_ratio must lie in [0, 1], not {min_channel_ratio}")
    for name in criteria:
        CHANNEL_SCORES[name]  # an unknown name explains itself
    trial = _Trial.of(network, images, torch.device(device), min_channel_ratio)
    left_out = {} if criteria else trial.without_scores()
    chosen = [name for name in dict.fromkeys(criteria or CHANNEL_SCORES) if name not in left_out]
    rows, cases = [], list(itertools.product(chosen, dict.fromkeys(shares)))
    for done, (criterion, share) in enumerate(cases):
        advance(done, len(cases))
        rows.append(trial.pruned(criterion, share, draws if criterion in RANDOM else 1))
    advance(len(cases), len(cases))
    return Prunability(
        split=images.name,
        images=len(images.split),
        channels=trial.masks.channels - trial.masks.removed,
        unpruned=trial.accuracy(trial.masks),
        rows=tuple(rows),
        left_out=left_out,
    )


def prunability_table(found: Prunability) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The headings and the rows of the paper's Table 2: criteria against shares, accuracies in percent."""
    cells = {"unpruned": [f"{found.unpruned:.2f}"] * len(found.shares)}
    for row in found.rows:
        spread = "" if row.std is None else f" ± {row.std:.2f}"
        cells.setdefault(row.criterion, []).append(f"{row.accuracy:.2f}{spread}")
    headings = ("criterion", *(f"{100 * share:g} % pruned" for share in found.shares))
    return headings, [(name, *row) for name, row in cells.items()]


def collapses(found: Prunability) -> str:
    """Which criteria leave a layer with one channel, from which share on, as a sentence; empty where none does."""
    first: dict[str, Pruned] = {}
    for row in sorted(found.rows, key=lambda row: row.share):
        if row.collapsed:
            first.setdefault(row.criterion, row)
    named = [f"{name} from {100 * row.share:g} % on ({', '.join(row.collapsed)})" for name, row in first.items()]
    return f"A layer is left with a single channel by {'; '.join(named)}." if named else ""


def prunable_masks(network: Network) -> Masks:
    """The masks of a network that a recipe trained, over the groups that the recipe lets go, also where its method
    removed no channels itself.

    Raises:
        CheckpointError: if they do not fit the network.
        RecipeError: if no channel may leave.
    """
    masks = stored_masks(network)
    if masks.groups:
        return masks
    method = recipe_of(network).method
    groups = channel_groups(network.model, network.input.example(), freedoms=method.freedoms)
    may_leave = prunable(groups, prune_skip=method.prune_skip, keep=method.keep)
    if not may_leave:
        raise RecipeError(f"no channel of {network.path} may leave; `chase inspect {network.path}` says why")
    return Masks(masks.weights, may_leave, (name for name, _ in network.model.named_parameters()))


@dataclass(frozen=True)
class _Trial:
    """A network to be pruned again and again, on one device with its masks, under the floors of `ratio`."""

    model: nn.Module
    masks: Masks
    images: Images
    device: torch.device
    ratio: float

    @classmethod
    def of(cls, network: Network, images: Images, device: torch.device, ratio: float) -> _Trial:
        """A copy of a network, on a device."""
        masks = prunable_masks(network)
        masks.weights = {name: mask.to(device) for name, mask in masks.weights.items()}
        return cls(copy.deepcopy(network.model).to(device), masks, images, device, ratio)

    def accuracy(self, masks: Masks) -> float:
        """Top-1 accuracy in percent under some masks, with everything silent that makes a dead channel."""
        masked = copy.deepcopy(self.model)
        masks.apply_(masked)
        return evaluate(masked, self.images.split, device=self.device)

    def without_scores(self) -> dict[str, str]:
        """The criteria that this network has no scores for, with the reason."""
        reasons = {}
        for criterion in CHANNEL_SCORES:
            try:
                self._draw(criterion, 0.0, 0)
            except RecipeError as error:
                reasons[criterion] = str(error)
        return reasons

    def pruned(self, criterion: str, share: float, draws: int) -> Pruned:
        """One cell of the table."""
        found = [self._draw(criterion, share, seed) for seed in range(draws)]
        accuracies = tuple(self.accuracy(masks) for masks in found)
        return Pruned(
            criterion=criterion,
            share=share,
            channel_sparsity=found[0].channel_sparsity,
            accuracies=accuracies,
            collapsed=tuple(name for name in self.masks.alive if any(self._collapsed(masks, name) for masks in found)),
        )

    def _collapsed(self, masks: Masks, group: str) -> bool:
        return masks.widths()[group] == 1 < self.masks.widths()[group]

    def _draw(self, criterion: str, share: float, seed: int) -> Masks:
        batches = self.images.train.batches(BATCH, shuffle_seed=0, device=self.device)
        few = itertools.islice(batches, BATCHES)
        return one_shot(
            self.model,
            self.masks,
            share,
            batches=few,
            seed=seed,
            criterion=criterion,
            min_channel_ratio=self.ratio,
        )
