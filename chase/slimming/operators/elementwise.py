"""Element by element: activations, sums and products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import fx

from chase.slimming.operators.rule import Flow, applied, argument, labelled, own_vector, unknown
from chase.slimming.units import UNKNOWN, Axis, Labels
from chase.tracing import operator, place, shape

Combine = Callable[[list[float | None]], float]
"""From a dead unit's value in each operand (None: the operand does not have the unit) to that in the result."""


def unary(flow: Flow, node: fx.Node) -> Labels | None:
    """A function of each element: a dead unit takes its value at 0 (ReLU: 0, sigmoid: a constant)."""
    if len(node.all_input_nodes) > 1 or not isinstance(node.args[0], fx.Node):  # clamp(x, a, b), 2 ** x
        unknown(flow, node)
        return None
    source = flow.labels(node.args[0])
    return source and source.mapped(lambda value: applied(node, value))


def same(flow: Flow, node: fx.Node) -> Labels | None:
    """Changes nothing that matters here: a copy, a change of type or of memory."""
    return flow.labels(node.args[0])


def like(flow: Flow, node: fx.Node) -> Labels | None:
    """A new tensor of its argument's shape, such as zeros_like."""
    source = flow.labels(node.args[0])
    values = {"aten.zeros_like": 0.0, "aten.ones_like": 1.0}
    return source and source.mapped(lambda _: values.get(operator(node), UNKNOWN))


def made(flow: Flow, node: fx.Node) -> None:
    """A new tensor of a given shape, whatever it was made from."""


def at_random(flow: Flow, node: fx.Node) -> Labels | None:
    """Dropout: zero stays zero, anything else is random in training."""
    source = flow.labels(node.args[0])
    trains = argument(node, 2, "train", True)
    return source and source.mapped(lambda value: UNKNOWN if trains and value else value)


def prelu(flow: Flow, node: fx.Node) -> Labels | None:
    """prelu(input [b, c, ...], weight [c] or [1])."""
    source, slope = flow.labels(node.args[0]), node.args[1]
    if source is not None and 1 in source.axes and isinstance(slope, fx.Node) and shape(slope) != (1,):
        own_vector(flow, slope, source.axes[1].ids)
    return source and source.mapped(lambda value: value and UNKNOWN)


def join(flow: Flow, node: fx.Node, operands: Sequence[object], combine: Combine) -> Labels | None:
    """Operands broadcast against each other: their units are tied along each axis that both have."""
    sides = shape(node)
    found = [(operand, flow.labels(operand)) for operand in operands if isinstance(operand, fx.Node)]
    axes: dict[int, Axis] = {}
    for axis in range(len(sides)):
        entries = [_along(operand, labels, axis - len(sides)) for operand, labels in found]
        carried = [entry.ids for entry, _ in entries if entry is not None]
        if not carried:
            continue
        for ids in carried[1:]:
            flow.ledger.tie(carried[0], ids)
        if any(bare for _, bare in entries):
            flow.ledger.pin_all(carried[0], f"meets something that is not a channel at {place(node)}")
        else:
            axes[axis] = Axis(carried[0], combine([entry and entry.value for entry, _ in entries]))
    return labelled(sides, axes)


def _along(operand: fx.Node, labels: Labels | None, axis: int) -> tuple[Axis | None, bool]:
    """An operand's units along the axis (counted from the end), and whether it spans the axis without any."""
    sides = shape(operand)
    if -axis > len(sides) or sides[axis] == 1:
        return None, False
    entry = labels.axes.get(axis % len(sides)) if labels else None
    return entry, entry is None


def binary(flow: Flow, node: fx.Node) -> Labels | None:
    """A sum, difference, product or quotient of two tensors, or of a tensor and a number.

    A sum of two activations is where a skip connection ends.
    """
    first, second = node.args[:2]
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        return unary(flow, node) if isinstance(first, fx.Node) else None
    kind = operator(node).removeprefix("aten.").removesuffix("_")

    def combine(values: list[float | None]) -> float:
        absorbing = values[:2] if kind == "mul" else values[:1] if kind == "div" else []
        if 0.0 in absorbing and not (kind == "div" and values[1] == 0.0):
            return 0.0
        known = [value for value in values if value is not None]
        return applied(node, *known) if len(known) == 2 else UNKNOWN

    result = join(flow, node, (first, second), combine)
    if kind in ("add", "sub") and result is not None and flow.is_activation(first) and flow.is_activation(second):
        flow.rejoin(node)
    return result


def addcmul(flow: Flow, node: fx.Node) -> Labels | None:
    """addcmul(input, one, other) = input + value · one · other."""

    def combine(values: list[float | None]) -> float:
        product = 0.0 if 0.0 in values[1:] else UNKNOWN
        return UNKNOWN if values[0] is None else values[0] + product

    return join(flow, node, node.args[:3], combine)


def where(flow: Flow, node: fx.Node) -> Labels | None:
    """where(condition, one, other): a dead unit has to have the same value in both."""

    def combine(values: list[float | None]) -> float:
        one, other = values[1:]
        return one if one is not None and one == other and not math.isnan(one) else UNKNOWN

    if not all(isinstance(arg, fx.Node) for arg in node.args[:3]):
        return join(flow, node, node.args[:3], lambda values: UNKNOWN)
    return join(flow, node, node.args[:3], combine)
