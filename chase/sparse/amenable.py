"""Sparse amenable channels (paper §2.2): output channels that became sparser than they were at the start.

tracker = Amenable(sparse.model, sparse.masks)  # before the first step, under any method
...
tracker.shares(0.2, "umm")  # {"features.0": 0.11, …}, at any moment of the training
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chase.errors import CheckpointError
from chase.registry import Registry
from chase.slimming.groups import layer_name
from chase.sparse.masks import Masks
from chase.sparse.sparsifier import unwrap

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
DIGITS = 6  # of a recorded share: enough to tell one channel in a million


@dataclass(frozen=True)
class Metric:
    """A measure of channels (paper Table 1), from a masked weight, its mask (both [out, ...]) and the dense size of a
    channel to [out]; what it is for an empty channel, and whether sparser ones have more of it."""

    measure: Callable[[Tensor, Tensor, int], Tensor]
    empty: float
    grows: bool

    def rise(self, start: Tensor, now: Tensor) -> Tensor:
        """How much sparser channels have become, relative to their start; ∞ where they started without any zero."""
        change = now - start if self.grows else start - now
        return torch.nan_to_num(change / start, nan=0.0, posinf=math.inf, neginf=-math.inf)


def _umm(weight: Tensor, mask: Tensor, size: int) -> Tensor:
    return weight.abs().flatten(1).sum(1) / size


def _ws(weight: Tensor, mask: Tensor, size: int) -> Tensor:
    return 1 - mask.flatten(1).sum(1) / size


METRICS: Registry[Metric] = Registry(
    "amenable metric",
    {"umm": Metric(_umm, empty=0.0, grows=False), "ws": Metric(_ws, empty=1.0, grows=True)},
)
"""Contract: a channel is amenable where `rise(value at the start, value now)` exceeds the threshold."""


@dataclass(frozen=True)
class _Layer:
    """One weight as it was at the start: its module, `width` output channels of `size` weights each, and for each
    group that any of them belong to, the unit of each (int64 [width], -1 for none)."""

    module: nn.Module
    width: int
    size: int
    units: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, masks: Masks, name: str) -> _Layer:
        """The layer that the weight `name` belongs to."""
        module = model.get_submodule(name.rpartition(".")[0])
        rows = _by_output(module, masks.weights[name])
        along = 1 if isinstance(module, TRANSPOSED) and module.groups == 1 else 0
        units: dict[str, Tensor] = {}
        for group in masks.groups:
            for part in group.slices:
                if part.tensor == name and part.dim == along and not part.reads:
                    mine = units.setdefault(group.name, torch.full((len(rows),), -1))
                    mine[part.positions] = masks.units[group.name][part.units]
        return cls(module, len(rows), rows[0].numel(), units)

    def among(self, units: Mapping[str, Tensor]) -> Tensor:
        """Which channels are among these units of each group, or in no group, bool [width]."""
        inside = torch.ones(self.width, dtype=torch.bool)
        for group, mine in self.units.items():
            inside &= (mine < 0) | torch.isin(mine, units[group])
        return inside


def _by_output(module: nn.Module, weight: Tensor) -> Tensor:
    """A weight with a row for each output channel, [out, ...]; transposed convolutions have [in, out / groups, ...]."""
    if not isinstance(module, TRANSPOSED):
        return weight
    grouped: Tensor = weight.unflatten(0, (module.groups, -1))
    return grouped.transpose(1, 2).flatten(0, 1)


class Amenable:
    """Compares every output channel of every maskable weight with what it was when the tracker was made.

    A channel is amenable at the threshold v if (WS_i - WS_0) / WS_0 > v (metric "ws"), or if
    (UMM_0 - UMM_i) / UMM_0 > v (metric "umm"), where WS is the share of its weights that are masked and UMM their mean
    magnitude, zeros counted (paper §2.2, Table 1). WS rises by (1 - WS_0) / WS_0 at most, which is 0.11 for a channel
    that begins 90 % sparse, so high thresholds say little about it then. What the quotients leave open:

    - A channel that the method removed is amenable at every v, also once `Sparsifier.compact` has cut it out: a layer
      always has its dense width, and a channel its dense size.
    - WS_0 = 0 (a dense channel): any masked weight is an infinite rise, none is no rise.
    - UMM_0 = 0 (a channel that starts empty) has nothing to lose, and is not amenable while it lives.

    Nothing is done between two calls of its methods; each reads the weights once.

    Args:
        model: the network, also inside a wrapper.
        masks: its masks, such as `sparsifier.masks`.
    """

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        self._model, self._masks = unwrap(model), masks
        self._layers = {name: _Layer.of(self._model, masks, name) for name in masks.weights}
        self._start = {metric: self.values(metric) for metric in METRICS}

    @torch.no_grad()
    def values(self, metric: str = "umm") -> dict[str, Tensor]:
        """The metric of every channel now, float64 [dense width] by layer; 0 (UMM) or 1 (WS) where it was cut out."""
        chosen, weights = METRICS[metric], dict(self._model.named_parameters())
        found = {}
        for name, layer in self._layers.items():
            mask = self._masks.weights[name].float()
            rows, living = (_by_output(layer.module, tensor) for tensor in (weights[name] * mask, mask))
            values = torch.full((layer.width,), chosen.empty, dtype=torch.float64)
            values[layer.among(self._masks.units)] = chosen.measure(rows, living, layer.size).cpu().double()
            found[layer_name(name)] = values
        return found

    def rises(self, metric: str = "umm") -> dict[str, Tensor]:
        """How much sparser every channel has become, float64 [dense width] by layer; ∞ where it was removed."""
        masks, now = self._masks, self.values(metric)
        alive = {group: units[masks.alive[group]] for group, units in masks.units.items()}
        rises = {}
        for name, layer in self._layers.items():
            rise = METRICS[metric].rise(self._start[metric][layer_name(name)], now[layer_name(name)])
            rises[layer_name(name)] = rise.masked_fill(~layer.among(alive), math.inf)
        return rises

    def channels(self, v: float, metric: str = "umm") -> dict[str, Tensor]:
        """Which channels are amenable at the threshold `v`, bool [dense width] by layer."""
        return {layer: rise > v for layer, rise in self.rises(metric).items()}

    def shares(self, v: float, metric: str = "umm") -> dict[str, float]:
        """The share of each layer's channels that are amenable at the threshold `v`, in [0, 1]."""
        return _shares(self.rises(metric), v)

    def record(self, thresholds: Iterable[float]) -> dict[str, dict[str, dict[str, float]]]:
        """The shares at several thresholds as plain data, {metric: {v: {layer: share}}}; empty without thresholds."""
        wanted = {f"{v:g}": v for v in thresholds}
        rises = {metric: self.rises(metric) for metric in METRICS} if wanted else {}
        return {
            metric: {
                name: {layer: round(share, DIGITS) for layer, share in _shares(of_layers, v).items()}
                for name, v in wanted.items()
            }
            for metric, of_layers in rises.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """What every channel started from: {metric: {layer: float64 [dense width]}}."""
        return {metric: dict(values) for metric, values in self._start.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare with what `state_dict` held.

        Raises:
            CheckpointError: if it belongs to another network.
        """
        for metric, mine in self._start.items():
            theirs = state.get(metric, {})
            for layer in mine.keys() | theirs.keys():
                if layer not in mine or layer not in theirs or mine[layer].shape != theirs[layer].shape:
                    raise CheckpointError(f"the stored amenable channels belong to another network: {layer}")
        self._start = {metric: dict(state[metric]) for metric in self._start}


def _shares(rises: Mapping[str, Tensor], v: float) -> dict[str, float]:
    return {layer: int((rise > v).sum()) / len(rise) for layer, rise in rises.items()}
