"""Channel groups: which slices of which tensors leave together when a channel leaves.

The forward pass is traced once (a second time in training mode where parts of the model only run there); units (see
`chase.slimming.units`) are propagated through it operator by operator (see `chase.slimming.operators`). Nothing is
listed by hand for any architecture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from chase.slimming.units import NO_UNIT, Block, Ledger, UnionFind

SKIP_REASON = "meets a skip connection; use prune_skip"


@dataclass(frozen=True)
class Slice:
    """Part of a tensor along `dim`: position `positions[i]` belongs to unit `units[i]` of the group (int64).

    `block` limits it to some rows (one group of a grouped convolution). `reads` says that the tensor consumes the
    units; elsewhere a dead unit is silent. A dead unit is read as `value`, which is folded into the tensor `bias`.
    """

    tensor: str
    dim: int
    positions: Tensor
    units: Tensor
    block: Block | None = None
    reads: bool = False
    value: float = 0.0
    bias: str | None = None


class Lane(NamedTuple):
    """Channels side by side in one tensor: units of a group (int64, one entry a channel) and `fixed` that stay."""

    units: Tensor
    fixed: int = 0

    @property
    def width(self) -> int:
        """The dense width."""
        return len(self.units) + self.fixed

    def count(self, alive: Tensor) -> int:
        """The channels that stay, given the units that live (bool [size])."""
        return int(alive[self.units].sum()) + self.fixed


@dataclass(frozen=True)
class Group:
    """Channels that are decided together.

    `size` units, numbered from 0; `slices` are all that leaves with a unit; `producers` are the weights that make the
    units, and `lanes` their widths. `even` are sets of lanes that keep equally many channels (the groups of a grouped
    convolution), and `conv_groups` the number of groups of each producer that is a grouped convolution. `pinned` says
    why no unit may ever leave; `held` counts, by reason, channels of these producers that are not among the units since
    they must stay. `skip` says that the units run along a skip connection.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]
    producers: tuple[str, ...]
    pinned: str | None = None
    skip: bool = False
    held: Mapping[str, int] = field(default_factory=dict)
    lanes: tuple[Lane, ...] = ()
    even: tuple[tuple[Lane, ...], ...] = ()
    conv_groups: Mapping[str, int] = field(default_factory=dict)

    def why_not(self, *, prune_skip: bool = False, keep: Sequence[str] = ()) -> str | None:
        """Why the channels may not leave under these settings, or None if they may.

        `keep` holds patterns of layer names (`features.49`, `layer1.*`) whose channels stay.
        """
        if self.pinned:
            return self.pinned
        if self.skip and not prune_skip:
            return SKIP_REASON
        pattern = next((pattern for pattern in keep if self.matches(pattern)), None)
        return None if pattern is None else f"kept by the setting keep={pattern}"

    def matches(self, pattern: str) -> bool:
        """Whether a pattern fits the name of one of the layers that make the units."""
        return any(fnmatchcase(layer, pattern) for layer in self.layers)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that make the units."""
        return tuple(map(layer_name, self.producers))


def layer_name(tensor: str) -> str:
    """The module that a tensor belongs to."""
    return tensor.rpartition(".")[0] or tensor


def prunable(groups: Iterable[Group], *, prune_skip: bool = False, keep: Sequence[str] = ()) -> tuple[Group, ...]:
    """The groups whose channels may leave under these settings."""
    return tuple(group for group in groups if group.why_not(prune_skip=prune_skip, keep=keep) is None)


def collect(ledger: Ledger) -> tuple[Group, ...]:
    """Groups from a finished ledger: producers whose units are tied, or have to stay even, form one group."""
    return Collection(ledger).groups()


class Collection:
    """The units of a ledger, each with the group it falls into and its number there."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.roots = ledger.units.roots()
        self.pins: dict[int, str] = {}
        for unit, reason in ledger.pins.items():
            self.pins.setdefault(int(self.roots[unit]), reason)
        while self._hold_beside_fixed():
            pass
        self.members = self._members()
        self.group_of = torch.full_like(self.roots, NO_UNIT)
        self.number = torch.full_like(self.roots, NO_UNIT)
        self.order = {name: index for index, name in enumerate(self._names())}
        self.sizes = [self._enumerate(index, producers) for index, producers in enumerate(self.members)]
        self.group_of, self.number = self.group_of[self.roots], self.number[self.roots]

    def _hold_beside_fixed(self) -> bool:
        """Hold the units of blocks that have to stay even with one that cannot get narrower; whether any was."""
        before = len(self.pins)
        for blocks in self.ledger.even:
            fixed = max(sum(self._is_fixed(unit) for unit in block.tolist()) for block in blocks)
            for block in blocks:
                if len(block) <= fixed:
                    for unit in block[block >= 0].tolist():
                        self.pins.setdefault(int(self.roots[unit]), "has to stay even with channels that cannot leave")
        return len(self.pins) > before

    def _is_fixed(self, unit: int) -> bool:
        return unit < 0 or int(self.roots[unit]) in self.pins

    def _members(self) -> list[list[tuple[str, int]]]:
        """The producers (tensor, dim) of each group, in execution order."""
        weights = list(self.ledger.produced)
        sets = UnionFind(len(weights))
        first: dict[int, int] = {}
        for index, key in enumerate(weights):
            for root in set(self.roots[self.ledger.produced[key]].tolist()):
                sets.join(first.setdefault(root, index), index)
        for blocks in self.ledger.even:
            ids = torch.cat(blocks)
            touched = [first[root] for root in set(self.roots[ids[ids >= 0]].tolist()) if root in first]
            for index in touched[1:]:
                sets.join(touched[0], index)
        members: dict[int, list[tuple[str, int]]] = {}
        for index, key in enumerate(weights):
            members.setdefault(sets.root(index), []).append(key)
        return list(members.values())

    def _enumerate(self, index: int, producers: list[tuple[str, int]]) -> int:
        """Number the units of a group that may leave; all of them where none may."""
        made = torch.cat([self.roots[self.ledger.produced[key]] for key in producers]).tolist()
        units = list(dict.fromkeys(made))
        free = [unit for unit in units if unit not in self.pins] or units
        self.group_of[torch.tensor(free)] = index
        self.number[torch.tensor(free)] = torch.arange(len(free))
        return len(free)

    def any_free(self, ids: Tensor) -> bool:
        """Whether any of these units may leave."""
        return any(not self._is_fixed(unit) for unit in ids.unique().tolist())

    def staying(self, groups: Sequence[Group], kept: Mapping[str, Tensor]) -> Tensor:
        """Which units of the ledger stay if these groups keep so many of theirs (units [n] by name), bool [units]."""
        stays = torch.ones(len(self.roots), dtype=torch.bool)
        for group in groups:
            gone = torch.ones(group.size, dtype=torch.bool)
            gone[kept[group.name]] = False
            here = self.group_of == self.order[group.name]
            stays[here] = ~gone[self.number[here]]
        return stays

    def groups(self) -> tuple[Group, ...]:
        """All groups, in execution order."""
        slices, even = self._slices(), self._even()
        skips = {int(self.group_of[unit]) for unit in self.ledger.skips}
        names = list(self.order)
        divided = self.ledger.conv_groups
        return tuple(
            Group(
                name=names[index],
                size=self.sizes[index],
                slices=tuple(slices[index]),
                producers=tuple(dict.fromkeys(tensor for tensor, _ in producers)),
                skip=index in skips,
                lanes=tuple(self._lane(self.ledger.produced[key], index) for key in producers),
                even=tuple(even[index]),
                conv_groups={tensor: divided[tensor] for tensor, _ in producers if tensor in divided},
                pinned=self._pinned(producers),
                held=self._held(producers),
            )
            for index, producers in enumerate(self.members)
        )

    def _names(self) -> list[str]:
        """A group is called after its first layer; a second group of the same layer, also after the axis."""
        names: list[str] = []
        for producers in self.members:
            tensor, dim = producers[0]
            name = layer_name(tensor)
            names.append(name if name not in names else f"{name}[{dim}]")
        return names

    def _made(self, producers: list[tuple[str, int]]) -> list[int]:
        roots: list[int] = torch.cat([self.roots[self.ledger.produced[key]] for key in producers]).unique().tolist()
        return roots

    def _pinned(self, producers: list[tuple[str, int]]) -> str | None:
        made = self._made(producers)
        return self.pins[made[0]] if all(unit in self.pins for unit in made) else None

    def _held(self, producers: list[tuple[str, int]]) -> dict[str, int]:
        if self._pinned(producers) is not None:
            return {}
        return dict(Counter(self.pins[unit] for unit in self._made(producers) if unit in self.pins))

    def _lane(self, ids: Tensor, index: int) -> Lane:
        here = ids[ids >= 0]
        units = self.number[here][self.group_of[here] == index]
        return Lane(units, len(ids) - len(units))

    def _even(self) -> list[list[tuple[Lane, ...]]]:
        even: list[list[tuple[Lane, ...]]] = [[] for _ in self.members]
        for blocks in self.ledger.even:
            ids = torch.cat(blocks)
            for index in set(self.group_of[ids[ids >= 0]].tolist()) - {NO_UNIT}:
                even[index].append(tuple(self._lane(block, index) for block in blocks))
        return even

    def _slices(self) -> list[list[Slice]]:
        slices: list[list[Slice]] = [[] for _ in self.members]
        for owned in self.ledger.owned.values():
            for index, positions, units in self._divided(owned.ids):
                part = Slice(
                    owned.tensor, owned.dim, positions, units, owned.block, owned.reads, owned.value, owned.bias
                )
                slices[index].append(part)
        return slices

    def _divided(self, ids: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The positions of units by group: (group, positions, numbers of the units)."""
        safe = ids.clamp(min=0)
        groups = torch.where(ids >= 0, self.group_of[safe], NO_UNIT).numpy()
        numbers = self.number[safe].numpy()
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=NO_UNIT - 1))
        for part in np.split(order, starts[1:]):
            if groups[part[0]] != NO_UNIT:
                yield int(groups[part[0]]), torch.from_numpy(part), torch.from_numpy(numbers[part])
