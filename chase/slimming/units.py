"""Units and the ledger that says which tensors own them.

A *unit* is one channel as it runs through the network. Units are numbered as they are produced; units that an
operation ties together (an addition of two branches) become one. The ledger records which slice of which tensor
belongs to which unit, and why a unit may not leave.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NO_UNIT = -1


@dataclass(frozen=True)
class Labels:
    """The units of an activation of shape `shape`: position i along `dim` carries unit `ids[i]`.

    `constant` says that a dead channel arrives here as a constant other than zero (after a sigmoid, say).
    """

    dim: int
    ids: Tensor
    shape: tuple[int, ...]
    constant: bool = False

    def full(self) -> Tensor:
        """The unit of every element, int64 [*shape], without memory of its own."""
        sides = [1] * len(self.shape)
        sides[self.dim] = len(self.ids)
        return self.ids.view(sides).expand(self.shape)

    @classmethod
    def of(cls, full: Tensor, constant: bool) -> Labels | None:
        """Labels from the unit of every element, or None where units vary along more than one axis."""
        for dim, size in enumerate(full.shape):
            rows = full.movedim(dim, -1).reshape(-1, size)
            if bool((rows == rows[:1]).all()):
                return cls(dim, rows[0].clone(), tuple(full.shape), constant)
        return None


@dataclass(frozen=True)
class Owned:
    """Positions along `dim` of a tensor and the unit of each (int64 [size of dim])."""

    tensor: str
    dim: int
    ids: Tensor


class UnionFind:
    """Sets of numbers that can be joined; each set is known by one of its numbers, its root."""

    def __init__(self, count: int = 0) -> None:
        self.parents = list(range(count))

    def extend(self, count: int) -> Tensor:
        """`count` new numbers, each a set of its own, int64 [count]."""
        start = len(self.parents)
        self.parents.extend(range(start, start + count))
        return torch.arange(start, start + count)

    def root(self, item: int) -> int:
        """The number that stands for the set of `item`."""
        while self.parents[item] != item:
            self.parents[item] = self.parents[self.parents[item]]
            item = self.parents[item]
        return item

    def join(self, one: int, other: int) -> None:
        """Make one set of two; the smaller root stays."""
        low, high = sorted((self.root(one), self.root(other)))
        self.parents[high] = low

    def roots(self) -> Tensor:
        """The root of every number, int64."""
        return torch.tensor([self.root(item) for item in range(len(self.parents))], dtype=torch.int64)


class Ledger:
    """Which units are tied, the tensors that own them, and the reasons that hold them."""

    def __init__(self) -> None:
        self.units = UnionFind()
        self.owned: dict[tuple[str, int], Owned] = {}
        self.explained: set[str] = set()
        self.foreign: dict[str, str] = {}
        self.produced: dict[str, Tensor] = {}
        self.pins: dict[int, str] = {}
        self.skips: set[int] = set()

    def produce(self, weight: str, count: int) -> Tensor:
        """The units that the rows of `weight` make; the same ones when a module is used twice."""
        if weight not in self.produced:
            self.produced[weight] = self.units.extend(count)
        return self.produced[weight]

    def own(self, tensor: str, dim: int, ids: Tensor) -> None:
        """Record that `tensor` loses a position along `dim` when its unit leaves."""
        self.explained.add(tensor)
        if (earlier := self.owned.get((tensor, dim))) is not None:
            self.tie(earlier.ids, ids)
        else:
            self.owned[tensor, dim] = Owned(tensor, dim, ids)

    def tie(self, ours: Tensor, theirs: Tensor) -> None:
        """Make units leave together, position by position; a position without a unit holds the other one."""
        for one, other in zip(ours.tolist(), theirs.tolist(), strict=True):
            if one < 0 or other < 0:
                self.pin_unit(max(one, other), "is tied to channels that cannot leave")
            else:
                self.units.join(one, other)

    def pin_unit(self, unit: int, reason: str) -> None:
        """Hold one unit, with the first reason given."""
        if unit >= 0:
            self.pins.setdefault(unit, reason)

    def pin(self, labels: Labels | None, reason: str) -> None:
        """Hold every unit of an activation."""
        if labels is not None:
            for unit in set(labels.ids.tolist()):
                self.pin_unit(unit, reason)

    def settle(self) -> None:
        """Hold the units of tensors that an operator uses in a way that no rule explains."""
        for owned in self.owned.values():
            if owned.tensor in self.foreign:
                self.pin(Labels(0, owned.ids, ()), self.foreign[owned.tensor])

    def skip(self, labels: Labels | None) -> None:
        """Note that these units run along a skip connection."""
        if labels is not None:
            self.skips.update(unit for unit in labels.ids.tolist() if unit >= 0)
