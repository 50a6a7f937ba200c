"""Channel criteria: how much a channel is worth. The channels with the lowest scores leave first.

A criterion maps the rows that make channels in one weight to a score for each row (paper Tables 1 and 2). Add one with
`CHANNEL_SCORES["mine"] = Criterion(function)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from chase.errors import RecipeError
from chase.registry import Registry


@dataclass(frozen=True)
class Rows:
    """The rows of one weight that make channels.

    `layer` names the weight; `weight` [out, ...] holds masked entries as zeros, `mask` is of its shape, and `size` is
    the number of entries of a dense row, more than the row's own where dead channels have been cut out of a live
    training. `groups` is that of a convolution: equally many rows, one after the other, read the same input channels,
    and only those can be compared entry by entry. `alive` [out] says which rows' channels live. `scale` [out] is the
    mean |γ| of the norms that the channels run through (None: there is none); `taylor` and `fisher` [out] are means
    over training steps of |G| and G², with G the gradient of the loss for a gate on the channel (None: not recorded).
    `generator` is for random draws.
    """

    layer: str
    weight: Tensor
    mask: Tensor
    size: int
    groups: int
    alive: Tensor
    scale: Tensor | None
    taylor: Tensor | None
    fisher: Tensor | None
    generator: torch.Generator


class Criterion(NamedTuple):
    """A score of rows, and whether it needs the gates' gradients of training steps."""

    score: Callable[[Rows], Tensor]
    gradients: bool = False

    @property
    def about(self) -> str:
        """What it is: the docstring of its score."""
        return " ".join((self.score.__doc__ or "").split())


def umm(rows: Rows) -> Tensor:
    """Unmasked mean magnitude: Σ|θ| over a row, divided by its dense size, zeros counted (paper Table 1)."""
    return l1(rows) / rows.size


def ws(rows: Rows) -> Tensor:
    """1 − weight sparsity: the share of a row that is not masked, so that the sparsest leave first (paper Table 1)."""
    return rows.mask.flatten(1).sum(1) / rows.size


def mmm(rows: Rows) -> Tensor:
    """Masked mean magnitude: the mean |θ| over the unmasked weights of a row, 0 without any (paper Table 1)."""
    return l1(rows) / rows.mask.flatten(1).sum(1).clamp(min=1)


def uniform(rows: Rows) -> Tensor:
    """A uniform draw (random pruning)."""
    return torch.rand(len(rows.weight), generator=rows.generator)


def bn_scale(rows: Rows) -> Tensor:
    """|γ| of the norm that follows (Network Slimming, Liu et al. 2017)."""
    return _required(rows, rows.scale, "a norm after each layer, which {} has not")


def l1(rows: Rows) -> Tensor:
    """Σ|θ| over a row (Li et al. 2017)."""
    return rows.weight.abs().flatten(1).sum(1)


def l2(rows: Rows) -> Tensor:
    """√Σθ² over a row (He et al. 2018)."""
    norms: Tensor = torch.linalg.vector_norm(rows.weight.flatten(1), dim=1)
    return norms


def fpgm(rows: Rows) -> Tensor:
    """The sum of distances to the layer's other living rows, in a grouped convolution to those of the same group: rows
    near the geometric median can be replaced by the rest (He et al. 2019)."""
    flat, exact = rows.weight.flatten(1).float(), "donot_use_mm_for_euclid_dist"  # products would add noise
    parts = zip(flat.chunk(rows.groups), rows.alive.to(flat.device).chunk(rows.groups), strict=True)
    return torch.cat([torch.cdist(part, part[alive], compute_mode=exact).sum(1) for part, alive in parts])


def taylor(rows: Rows) -> Tensor:
    """The mean |G|: how much the loss changes, to first order, without the channel (Molchanov et al. 2017)."""
    return _required(rows, rows.taylor, "gradients of training steps, which {} has none of")


def group_fisher(rows: Rows) -> Tensor:
    """The mean G²: the Fisher information of a gate on all coupled rows (Group Fisher, Liu et al. 2021)."""
    return _required(rows, rows.fisher, "gradients of training steps, which {} has none of")


def _required(rows: Rows, value: Tensor | None, what: str) -> Tensor:
    if value is None:
        raise RecipeError(f"this channel criterion needs {what.format(rows.layer)}; choose another, such as umm")
    return value


def reverse(criterion: Criterion) -> Criterion:
    """The same, highest first (paper Table 2)."""

    def score(rows: Rows) -> Tensor:
        return -criterion.score(rows)

    score.__doc__ = f"Highest first: {criterion.about}"
    return Criterion(score, criterion.gradients)


CHANNEL_SCORES: Registry[Criterion] = Registry(
    "channel score",
    {
        "umm": Criterion(umm),
        "ws": Criterion(ws),
        "mmm": Criterion(mmm),
        "umm-reverse": reverse(Criterion(umm)),
        "ws-reverse": reverse(Criterion(ws)),
        "mmm-reverse": reverse(Criterion(mmm)),
        "random": Criterion(uniform),
        "network-slimming": Criterion(bn_scale),
        "l1": Criterion(l1),
        "l2": Criterion(l2),
        "fpgm": Criterion(fpgm),
        "taylor": Criterion(taylor, gradients=True),
        "group-fisher": Criterion(group_fisher, gradients=True),
    },
)
