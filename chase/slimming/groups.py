"""Channel groups: which slices of which tensors leave together when a channel leaves.

The forward pass is traced once; units (see `chase.slimming.units`) are propagated through it operator by operator
(see `chase.slimming.operators`). Nothing is listed by hand for any architecture.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from chase.slimming.operators import RULES, unknown
from chase.slimming.units import NO_UNIT, Labels, Ledger, UnionFind
from chase.tracing import Trace, operator, trace

SKIP_REASON = "meets a skip connection; use prune_skip"


@dataclass(frozen=True)
class Slice:
    """Part of a tensor along `dim`: position `positions[i]` belongs to unit `units[i]` of the group (int64)."""

    tensor: str
    dim: int
    positions: Tensor
    units: Tensor


@dataclass(frozen=True)
class Group:
    """Channels that are decided together.

    `size` units, numbered from 0; `slices` are all that leaves with a unit; `producers` are the weights whose rows
    (dim 0) make the units. `pinned` says why no unit may ever leave; `skip` says that they run along a skip
    connection.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]
    producers: tuple[str, ...]
    pinned: str | None = None
    skip: bool = False

    def why_not(self, *, prune_skip: bool = False, keep: Sequence[str] = ()) -> str | None:
        """Why the channels may not leave under these settings, or None if they may.

        `keep` holds patterns of layer names (`features.49`, `layer1.*`) whose channels stay.
        """
        if self.pinned:
            return self.pinned
        if self.skip and not prune_skip:
            return SKIP_REASON
        for producer in self.producers:
            for pattern in keep:
                if fnmatch.fnmatch(layer_name(producer), pattern):
                    return f"kept by the setting keep={pattern}"
        return None


def layer_name(tensor: str) -> str:
    """The module that a tensor belongs to."""
    return tensor.rpartition(".")[0] or tensor


def prunable(groups: Iterable[Group], *, prune_skip: bool = False, keep: Sequence[str] = ()) -> tuple[Group, ...]:
    """The groups whose channels may leave under these settings."""
    return tuple(group for group in groups if group.why_not(prune_skip=prune_skip, keep=keep) is None)


class Propagation:
    """One walk through a trace, in execution order."""

    def __init__(self, traced: Trace) -> None:
        self.trace = traced
        self.ledger = Ledger()
        self.values: dict[fx.Node, Labels | None] = {}
        self.position = {node: index for index, node in enumerate(traced.nodes)}
        self.ancestors: dict[fx.Node, int] = {}

    def labels(self, node: object) -> Labels | None:
        """The units of a node's result."""
        return self.values.get(node) if isinstance(node, fx.Node) else None

    def tensor_name(self, node: object) -> str | None:
        """The parameter or buffer that a node stands for."""
        return self.trace.tensor_name(node)

    def rejoin(self, node: fx.Node) -> None:
        """Mark the skip connection that ends at the addition `node`: both branches, and where they split."""
        ours, theirs = (arg for arg in node.args[:2] if isinstance(arg, fx.Node))
        common = self._with_itself(ours) & self._with_itself(theirs)
        self.ledger.skip(self.labels(ours))
        if common:
            self.ledger.skip(self.labels(self.trace.nodes[common.bit_length() - 1]))

    def _with_itself(self, node: fx.Node) -> int:
        return self.ancestors[node] | 1 << self.position[node]

    def run(self) -> Ledger:
        """Walk every node; what no rule covers is held."""
        for node in self.trace.nodes:
            self.ancestors[node] = 0
            for source in node.all_input_nodes:
                self.ancestors[node] |= self._with_itself(source)
            self.values[node] = self._visit(node)
        self.ledger.settle()
        return self.ledger

    def _visit(self, node: fx.Node) -> Labels | None:
        if node.op == "output":
            for source in node.all_input_nodes:
                self.ledger.pin(self.labels(source), "is an output of the model")
            return None
        if node.op != "call_function":
            return None
        rule: Any = RULES.get(operator(node), unknown)
        self.ledger.explained.clear()
        result: Labels | None = rule(self, node)
        for name in filter(None, map(self.tensor_name, node.all_input_nodes)):
            if name not in self.ledger.explained:
                self.ledger.foreign.setdefault(name, f"owns part of {name}, which {operator(node)} also uses")
        if operator(node).endswith("_") and isinstance(node.args[0], fx.Node):
            self.values[node.args[0]] = result  # written in place: later readers see the new value
        return result


def channel_groups(model: nn.Module, example: Tensor) -> tuple[Group, ...]:
    """All channel groups of `model`, in execution order, traced on an input like `example` [b, ...].

    Raises:
        TraceError: if `torch.export` cannot follow the forward pass.
    """
    return groups_of(trace(model, example))


def groups_of(traced: Trace) -> tuple[Group, ...]:
    """The channel groups of a traced forward pass."""
    return collect(Propagation(traced).run())


def collect(ledger: Ledger) -> tuple[Group, ...]:
    """Groups from a finished ledger: producers whose rows are tied form one group."""
    roots = ledger.units.roots()
    weights = list(ledger.produced)
    sets = UnionFind(len(weights))
    first: dict[int, int] = {}
    for number, weight in enumerate(weights):
        for root in set(roots[ledger.produced[weight]].tolist()):
            sets.join(first.setdefault(root, number), number)
    members: dict[int, list[str]] = {}
    for number, weight in enumerate(weights):
        members.setdefault(sets.root(number), []).append(weight)
    return tuple(_group(ledger, roots, producers) for producers in members.values())


def _group(ledger: Ledger, roots: Tensor, producers: list[str]) -> Group:
    made = torch.cat([roots[ledger.produced[name]] for name in producers])
    units = list(dict.fromkeys(made.tolist()))
    index = torch.full_like(roots, NO_UNIT)
    index[torch.tensor(units)] = torch.arange(len(units))
    index = index[roots]
    return Group(
        name=layer_name(producers[0]),
        size=len(units),
        slices=tuple(_slices(ledger, index)),
        producers=tuple(producers),
        pinned=next((reason for unit, reason in ledger.pins.items() if index[unit] >= 0), None),
        skip=any(index[unit] >= 0 for unit in ledger.skips),
    )


def _slices(ledger: Ledger, index: Tensor) -> Iterable[Slice]:
    for owned in ledger.owned.values():
        units = torch.where(owned.ids >= 0, index[owned.ids.clamp(min=0)], NO_UNIT)
        positions = (units >= 0).nonzero().flatten()
        if len(positions):
            yield Slice(owned.tensor, owned.dim, positions, units[positions])
