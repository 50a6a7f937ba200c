"""What a rule is: from the units of an operator's inputs to those of its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, fx

from chase.slimming.units import UNKNOWN, Axis, Labels, Ledger, Owned
from chase.tracing import operator

Result: TypeAlias = "Labels | tuple[Labels | None, ...] | None"
"""The units of a value; of each value where an operator returns several; None: no units."""


@dataclass(frozen=True)
class Freedoms:
    """What may leave beyond plain channels, at a price; nothing by default.

    norms: channels that run through a LayerNorm, which then divides by its dense width (`WideLayerNorm`): exact, but
        runtimes have no fused kernel for it.
    heads: whole attention heads, where the module takes their number from settings that are declared to follow.
    """

    norms: bool = False
    heads: bool = False


class Flow(Protocol):
    """What a rule may ask and say (see `chase.slimming.propagation.Propagation`)."""

    ledger: Ledger
    freedoms: Freedoms

    def labels(self, node: object) -> Labels | None:
        """The units of an argument; those of a parameter or buffer run along each of its axes."""

    def several(self, node: object) -> tuple[Labels | None, ...]:
        """The units of each value of an argument that is a list of tensors."""

    def tensor_name(self, node: object) -> str | None:
        """The parameter or buffer that an argument is."""

    def is_buffer(self, node: object) -> bool:
        """Whether an argument is a buffer, which masks do not silence."""

    def owner(self, tensor: str) -> type:
        """The class of the module that a parameter or buffer belongs to."""

    def is_activation(self, node: object) -> bool:
        """Whether an argument depends on the model's inputs."""

    def chosen_axis(self, node: fx.Node, axes: Sequence[int]) -> int:
        """The axis that units run along when `node` splits their axis into several; they are tied along the others."""

    def guesses(self, ids: Tensor) -> bool:
        """Whether a rule may take sizes in the graph to follow the width of these units; that is checked afterwards."""

    def rejoin(self, node: fx.Node) -> None:
        """Mark the units that run along the skip connection which ends at `node`."""


Rule: TypeAlias = Callable[[Flow, fx.Node], Result]


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """An operator's argument, given by position or by name."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def axes_of(value: Any, rank: int) -> set[int]:
    """Axes, given as one number or several, possibly negative; all of them for None or an empty list."""
    listed = [value] if isinstance(value, int) else list(value or range(rank))
    return {axis % rank for axis in listed}


def hold(flow: Flow, node: fx.Node, reason: str) -> None:
    """Pin the units of every activation that goes into `node`; a parameter it takes may not be cut."""
    for source in node.all_input_nodes:
        if flow.tensor_name(source) is None:
            for labels in flow.several(source):
                flow.ledger.pin(labels, reason)


def unknown(flow: Flow, node: fx.Node) -> None:
    """No rule: hold everything."""
    hold(flow, node, f"reaches {operator(node) or node.name}, which has no rule")


def stays(flow: Flow, labels: Labels | None, axes: Iterable[int], reason: str) -> Labels | None:
    """Labels whose units along some axes are held, and may be anything from here on."""
    if labels is None:
        return None
    held = _held(flow, labels, axes, reason)
    return Labels(labels.shape, {**labels.axes, **{a: Axis(labels.axes[a].ids, UNKNOWN) for a in held}})


def without_axes(flow: Flow, labels: Labels | None, axes: Iterable[int], reason: str) -> Labels | None:
    """Labels less some axes, whose units are held."""
    if labels is None:
        return None
    gone = _held(flow, labels, axes, reason)
    return labelled(labels.shape, {a: axis for a, axis in labels.axes.items() if a not in gone})


def _held(flow: Flow, labels: Labels, axes: Iterable[int], reason: str) -> set[int]:
    """Hold the units along those of the axes that carry any; which these are."""
    held = set(axes) & set(labels.axes)
    for axis in held:
        flow.ledger.pin_all(labels.axes[axis].ids, reason)
    return held


def labelled(sides: tuple[int, ...], axes: Mapping[int, Axis]) -> Labels | None:
    """Labels, or None where no axis carries units."""
    return Labels(sides, axes) if axes else None


def applied(node: fx.Node, *values: float) -> float:
    """An element-wise operator's value where its tensor arguments have these values; UNKNOWN if it is not finite."""
    if any(math.isnan(value) for value in values):
        return UNKNOWN
    numbers = [torch.tensor([value], dtype=torch.float64) for value in values]
    target: Any = node.target
    result = float(target(*numbers, *node.args[len(numbers) :], **node.kwargs))
    return result if math.isfinite(result) else UNKNOWN


def same_or_unknown(values: Iterable[float]) -> float:
    """The one value that all agree on, or UNKNOWN; 0 where there is none."""
    found = set(values)
    return found.pop() if len(found) == 1 else (UNKNOWN if found else 0.0)


def own_vector(flow: Flow, node: fx.Node | None, ids: Tensor) -> float:
    """A vector (bias, γ, running mean) has one entry for each of these units; the entry of a dead one."""
    if node is None:
        return 0.0
    name = flow.tensor_name(node)
    if name is not None:
        flow.ledger.own(Owned(name, 0, ids))
        return UNKNOWN if flow.is_buffer(node) else 0.0
    labels = flow.labels(node)
    if labels is not None and 0 in labels.axes:
        flow.ledger.tie(labels.axes[0].ids, ids)
        return labels.axes[0].value
    flow.ledger.pin_all(ids, f"meets {node.name}, which does not belong to a channel")
    return UNKNOWN
