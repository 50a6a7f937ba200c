"""Which layers grow: from what an event has left in each layer to each layer's share of the growth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from chase.registry import Registry
from chase.sparse.distributions import apportion


@dataclass(frozen=True)
class Growth:
    """What an allocation may look at, by layer: the weights that lived `before` the event pruned, those `living` now,
    those there is `room` for, and the mean `momentum` |ḡ| of the living ones. `add` is how many grow in all."""

    add: int
    before: Mapping[str, int]
    living: Mapping[str, int]
    room: Mapping[str, int]
    momentum: Callable[[], Mapping[str, float]]


Allocation = Callable[[Growth], Mapping[str, float] | None]


def everywhere(growth: Growth) -> None:
    """All layers compete by score (paper §3, global parameter exploration)."""


def restored(growth: Growth) -> Mapping[str, float]:
    """What each layer lacks of its share before the event, so that layers keep their counts (RigL, SET)."""
    most = {name: growth.living[name] + growth.room[name] for name in growth.living}
    targets = apportion(sum(growth.living.values()) + growth.add, growth.before, most)
    return {name: max(0, targets[name] - growth.living[name]) for name in targets}


def surviving(growth: Growth) -> Mapping[str, float]:
    """In proportion to the weights that survived in each layer (DSR, Mostafa and Wang 2019)."""
    return growth.living


def by_momentum(growth: Growth) -> Mapping[str, float]:
    """In proportion to the mean momentum of each layer's living weights (SNFS, Dettmers and Zettlemoyer 2019)."""
    return growth.momentum()


ALLOCATIONS: Registry[Allocation] = Registry(
    "allocation", {"global": everywhere, "layer": restored, "survivors": surviving, "momentum": by_momentum}
)
"""Contract: `(growth) → {layer: share}`, in any unit, or None where layers compete by score."""
