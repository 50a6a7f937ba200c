"""Units and the ledger that says which tensors own them.

A *unit* is one channel as it runs through the network. Every position along every axis of a parameter or buffer is a
unit of its own until an operation ties it to another; activations carry the units of the weights that made them. The
ledger records which slice of which tensor belongs to which unit, and why a unit may not leave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

NO_UNIT = -1
UNKNOWN = math.nan


@dataclass(frozen=True)
class Block:
    """Rows `index` · n / `count` and on, n / `count` of them, of a tensor's n rows: one group of a convolution."""

    index: int
    count: int

    def rows(self, tensor: Tensor) -> Tensor:
        """The block as a view."""
        return tensor.chunk(self.count)[self.index]


class Axis(NamedTuple):
    """The units along an axis, int64 [n] (NO_UNIT where there is none), and what a dead unit's elements are.

    `value` is 0, another constant, or UNKNOWN where it is not one number.
    """

    ids: Tensor
    value: float = 0.0


@dataclass(frozen=True)
class Labels:
    """The units of a value of shape `shape`, along each axis that has any."""

    shape: tuple[int, ...]
    axes: Mapping[int, Axis]

    def held(self) -> list[int]:
        """All its units, each once."""
        return [unit for axis in self.axes.values() for unit in axis.ids.unique().tolist() if unit >= 0]

    def mapped(self, function: Callable[[float], float], shape: tuple[int, ...] | None = None) -> Labels:
        """The same units, where a dead one's value goes through a function; `shape` may change, axes may not."""
        axes = {number: Axis(axis.ids, function(axis.value)) for number, axis in self.axes.items()}
        return Labels(self.shape if shape is None else shape, axes)

    def shaped(self, shape: tuple[int, ...]) -> Labels:
        """The same units along the same axes of another shape."""
        return Labels(shape, self.axes)


@dataclass(frozen=True)
class Owned:
    """Positions along `dim` of a tensor (of a block of its rows), and the unit of each (int64 [size of dim]).

    `reads` says that the tensor consumes the unit here; otherwise a dead unit is silent in it. What it reads from a
    dead unit is `value`, which times the weights adds up in `bias`.
    """

    tensor: str
    dim: int
    ids: Tensor
    block: Block | None = None
    reads: bool = False
    value: float = 0.0
    bias: str | None = None


class UnionFind:
    """Sets of numbers that can be joined; each set is known by its smallest number, its root."""

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


@dataclass
class Ledger:
    """Which units are tied, the tensors that own them, and the reasons that hold them.

    `produced` are the (tensor, dim) whose units are channels; `even` are sets of blocks, each block a list of units,
    that must keep equally many; `conv_groups` says in how many groups the weight of a grouped convolution makes its
    channels; `foreign` says why a tensor may not be cut at all, unless a rule has `explained` its use.
    """

    units: UnionFind = field(default_factory=UnionFind)
    owned: dict[tuple[str, int, Block | None], Owned] = field(default_factory=dict)
    produced: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    even: list[tuple[Tensor, ...]] = field(default_factory=list)
    conv_groups: dict[str, int] = field(default_factory=dict)
    explained: set[str] = field(default_factory=set)
    foreign: dict[str, str] = field(default_factory=dict)
    pins: dict[int, str] = field(default_factory=dict)
    skips: set[int] = field(default_factory=set)

    def units_of(self, tensor: str, dim: int, size: int) -> Tensor:
        """The units along an axis of a tensor, int64 [size]; new ones where nothing is known of it yet."""
        key = (tensor, dim, None)
        ids = self.owned[key].ids if key in self.owned else self.units.extend(size)
        self.own(Owned(tensor, dim, ids))
        return ids

    def produce(self, tensor: str, dim: int, size: int) -> Tensor:
        """The channels that a weight makes along `dim`, int64 [size]; the same ones when a module is used twice."""
        return self.produced.setdefault((tensor, dim), self.units_of(tensor, dim, size))

    def produce_again(self, ids: Tensor) -> None:
        """Units that a weight computed from parameters makes are the channels of the first of these."""
        for (tensor, dim, block), owned in self.owned.items():
            if block is None and not owned.reads and torch.equal(owned.ids, ids):
                self.produced.setdefault((tensor, dim), ids)
                return

    def own(self, owned: Owned) -> None:
        """Record that a tensor loses a position when its unit leaves."""
        self.explained.add(owned.tensor)
        key = (owned.tensor, owned.dim, owned.block)
        earlier = self.owned.get(key)
        if earlier is None:
            self.owned[key] = owned
            return
        self.tie(earlier.ids, owned.ids)
        if earlier.reads and (not owned.reads or (earlier.value, earlier.bias) != (owned.value, owned.bias)):
            self._read_twice(earlier, owned)
            self.owned[key] = owned if not owned.reads else earlier

    def _read_twice(self, earlier: Owned, later: Owned) -> None:
        """One weight that reads different constants has no single bias to fold them into."""
        for owned in (earlier, later):
            if owned.value:
                self.pin_all(owned.ids, f"is a constant, and {owned.tensor} reads it in several places")

    def tie(self, ours: Tensor, theirs: Tensor) -> None:
        """Make units leave together, position by position; a position without a unit holds the other one."""
        if torch.equal(ours, theirs):
            return
        for one, other in zip(ours.tolist(), theirs.tolist(), strict=True):
            if one < 0 or other < 0:
                self.pin_unit(max(one, other), "is tied to channels that cannot leave")
            elif one != other:
                self.units.join(one, other)

    def pin_unit(self, unit: int, reason: str) -> None:
        """Hold one unit, with the first reason given."""
        if unit >= 0:
            self.pins.setdefault(unit, reason)

    def pin_all(self, ids: Tensor, reason: str) -> None:
        """Hold units."""
        for unit in ids.tolist():
            self.pin_unit(unit, reason)

    def pin(self, labels: Labels | None, reason: str) -> None:
        """Hold every unit of a value."""
        if labels is not None:
            for unit in labels.held():
                self.pin_unit(unit, reason)

    def balance(self, blocks: Sequence[Tensor]) -> None:
        """Ask for equally many units to stay in each block."""
        if len(blocks) > 1:
            self.even.append(tuple(blocks))

    def divide(self, ids: Tensor, groups: int) -> None:
        """Note that a convolution makes these channels in so many groups, of which equally many have to stay."""
        self.balance(ids.chunk(groups))
        self.conv_groups |= {tensor: groups for (tensor, _), made in self.produced.items() if torch.equal(made, ids)}

    def settle(self) -> None:
        """Hold the units of tensors that an operator uses in a way that no rule explains."""
        for owned in self.owned.values():
            if owned.tensor in self.foreign:
                self.pin_all(owned.ids, self.foreign[owned.tensor])
            elif owned.block and (owned.tensor, owned.dim, None) in self.owned:
                self.pin_all(owned.ids, f"owns part of {owned.tensor}, which is used both grouped and whole")

    def skip(self, labels: Labels | None) -> None:
        """Note that these units run along a skip connection."""
        if labels is not None:
            self.skips.update(labels.held())
