"""Convolutions, linear layers and matrix products: their columns read units, their rows make new ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, fx

from chase.slimming.operators.rule import Flow, argument, hold, labelled, own_vector, unknown, without_axes
from chase.slimming.units import NO_UNIT, UNKNOWN, Axis, Block, Labels, Owned
from chase.tracing import operator, place, shape


def linear(flow: Flow, node: fx.Node) -> Labels | None:
    """linear(input [..., c], weight [out, c], bias)."""
    source, axis = flow.labels(node.args[0]), len(shape(node)) - 1
    _read(flow, node, _incoming(source, axis, shape(node.args[1])[1]))  # type: ignore[arg-type]
    return _passed(flow, node, source, axis, _rows(flow, node))


def convolution(flow: Flow, node: fx.Node) -> Labels | None:
    """conv(input [b, c, ...], weight [out, c / groups, ...], bias, stride, padding, dilation, groups)."""
    groups, weight = argument(node, 6, "groups", 1), shape(node.args[1])  # type: ignore[arg-type]
    if len(shape(node)) < len(weight):  # an image without a batch axis
        unknown(flow, node)
        return None
    source = flow.labels(node.args[0])
    spatial = range(2, len(shape(node)))
    source = without_axes(flow, source, spatial, f"runs along space at {operator(node)}")
    if groups > 1 and weight[1] == 1:
        return _depthwise(flow, node, source, weight[0] // groups)
    _read(flow, node, _incoming(source, 1, weight[1] * groups), groups)
    made = _rows(flow, node)
    if made is not None and groups > 1:
        flow.ledger.divide(made.ids, groups)
    return _passed(flow, node, source, 1, made)


def _incoming(source: Labels | None, axis: int, size: int) -> Axis:
    """The units that come in along `axis`; positions without one stay, also in another use of the weight."""
    nothing = Axis(torch.full((size,), NO_UNIT))
    return nothing if source is None else source.axes.get(axis, nothing)


def _read(flow: Flow, node: fx.Node, source: Axis, groups: int = 1) -> None:
    """The weight's columns read these units."""
    name, ids = flow.tensor_name(node.args[1]), source.ids
    if name is None:
        _read_computed(flow, node, source, groups)
        return
    bias = _own_bias(flow, node) if source.value else None
    if source.value and (reason := _cannot_fold(node, source.value, bias)):
        flow.ledger.pin_all(ids, f"arrives {reason} at {name.removesuffix('.weight')}")
    blocks = [Block(index, groups) for index in range(groups)] if groups > 1 else [None]
    parts = ids.chunk(groups)
    for block, part in zip(blocks, parts, strict=True):
        flow.ledger.own(Owned(name, 1, part, block, reads=True, value=source.value, bias=bias))
    flow.ledger.balance(parts)


def _own_bias(flow: Flow, node: fx.Node) -> str | None:
    """The bias, if nothing else reads it."""
    name = flow.tensor_name(argument(node, 2, "bias"))
    readers = [user for other in node.graph.nodes if name == flow.tensor_name(other) for user in other.users]
    return name if name is not None and len(readers) == 1 else None


def _read_computed(flow: Flow, node: fx.Node, source: Axis, groups: int) -> None:
    """A weight that is computed in the forward pass; its columns may leave where they can be followed."""
    columns = _silent(flow.labels(node.args[1]), 1)
    if columns is not None and groups == 1:
        flow.ledger.tie(columns, source.ids)
    else:
        flow.ledger.pin_all(source.ids, f"is read by a weight that is computed in the forward pass, at {place(node)}")


def _cannot_fold(node: fx.Node, value: float, bias: str | None) -> str | None:
    """Why a constant cannot be folded into the bias, or None if it can."""
    if math.isnan(value):
        return "as something other than zero"
    padding = argument(node, 4, "padding", 0) if "conv" in operator(node) else 0
    padded = padding == "same" or any([padding] if isinstance(padding, int) else padding if padding != "valid" else ())
    if padded:
        return f"as the constant {value:.4g} beside zero padding"
    return None if bias is not None else f"as the constant {value:.4g} with no bias of its own to fold it into,"


def _rows(flow: Flow, node: fx.Node, dim: int = 0) -> Axis | None:
    """The units that the weight makes along `dim`, bias included, or None if they cannot be followed."""
    weight, bias = node.args[1], argument(node, 2, "bias")
    name = flow.tensor_name(weight)
    if flow.is_buffer(weight):
        return None
    if name is not None:
        units: Tensor | None = flow.ledger.produce(name, dim, shape(weight)[dim])  # type: ignore[arg-type]
    else:
        units = _silent(flow.labels(weight), dim)
        if units is not None:
            flow.ledger.produce_again(units)
    return None if units is None else Axis(units, own_vector(flow, bias, units))


def _silent(labels: Labels | None, axis: int) -> Tensor | None:
    """The units along an axis of a computed weight, if dead ones are zero in it."""
    entry = labels.axes.get(axis) if labels is not None else None
    return entry.ids if entry is not None and entry.value == 0 else None


def _passed(flow: Flow, node: fx.Node, source: Labels | None, axis: int, made: Axis | None) -> Labels | None:
    """The result: new units along `axis`; units along other axes pass through, and meet the bias."""
    biased = argument(node, 2, "bias") is not None
    others = {a: entry for a, entry in source.axes.items() if a != axis} if source is not None else {}
    axes = {a: Axis(ids, UNKNOWN if value or biased else 0.0) for a, (ids, value) in others.items()}
    if made is not None:
        axes[axis] = made
    return labelled(shape(node), axes)


def _depthwise(flow: Flow, node: fx.Node, source: Labels | None, multiplier: int) -> Labels | None:
    """One filter (or a few) a channel: it leaves with the channel, as the entries of a norm do."""
    weight, bias = node.args[1], argument(node, 2, "bias")
    source = without_axes(flow, source, [0], f"runs along the batch at {operator(node)}")
    name = flow.tensor_name(weight)
    if source is None:
        made = _rows(flow, node) if name is not None else None
        flow.ledger.pin(made and Labels((), {0: made}), "is made of single channels that cannot leave")
        return made and Labels(shape(node), {1: made})
    units = source.axes[1].ids.repeat_interleave(multiplier)
    if name is not None:
        flow.ledger.own(Owned(name, 0, units))
    elif (rows := _silent(flow.labels(weight), 0)) is not None:
        flow.ledger.tie(rows, units)
    else:
        return without_axes(flow, source, [1], f"meets a weight that is computed in the forward pass, at {place(node)}")
    silent = source.axes[1].value == 0 or not flow.is_buffer(weight)
    added = own_vector(flow, bias, units)
    return Labels(shape(node), {1: Axis(units, added if silent else UNKNOWN)})


def transposed(flow: Flow, node: fx.Node) -> Labels | None:
    """conv_transpose(input [b, c, ...], weight [c, out / groups, ...], bias, stride, padding, _, groups, dilation)."""
    groups, weight = argument(node, 6, "groups", 1), shape(node.args[1])  # type: ignore[arg-type]
    name = flow.tensor_name(node.args[1])
    source = flow.labels(node.args[0])
    source = without_axes(flow, source, {0, *range(2, len(shape(node)))}, f"runs along space at {operator(node)}")
    if groups > 1 and weight[:2] == (groups, 1):
        return _depthwise(flow, node, source, 1)
    if groups > 1 or name is None:
        unknown(flow, node)
        return None
    incoming = _incoming(source, 1, weight[0])
    if incoming.value:
        flow.ledger.pin_all(incoming.ids, f"arrives as something other than zero at {name}")
    flow.ledger.own(Owned(name, 0, incoming.ids, reads=True))
    made = _rows(flow, node, dim=1)
    return made and Labels(shape(node), {1: made})


def matmul(flow: Flow, node: fx.Node) -> Labels | None:
    """matmul(one [..., n, c], other [..., c, m]); where one of them is a parameter, as a linear layer."""
    return _product(flow, node, node.args[0], node.args[1])


def addmm(flow: Flow, node: fx.Node) -> Labels | None:
    """addmm(bias, one [n, c], other [c, m])."""
    result = _product(flow, node, node.args[1], node.args[2])
    if result is None or not isinstance(node.args[0], fx.Node):
        return result
    axis = len(result.shape) - 1
    axes = {a: Axis(ids, UNKNOWN) for a, (ids, _) in result.axes.items()}
    if axis in axes:
        ids, value = result.axes[axis]
        added = own_vector(flow, node.args[0], ids)
        axes[axis] = Axis(ids, UNKNOWN if value else added)
    return Labels(result.shape, axes)


def _product(flow: Flow, node: fx.Node, one: object, other: object) -> Labels | None:
    ours, theirs = flow.labels(one), flow.labels(other)
    if flow.is_activation(one) and flow.is_activation(other):
        hold(flow, node, "is multiplied with another activation, as in an attention head")
        return None
    _contracted(flow, node, [(ours, -1), (theirs, -2)])
    axes: dict[int, Axis] = {}
    for labels, kept in ((ours, -2), (theirs, -1)):
        if labels is not None and len(labels.shape) > 1:
            rank = len(labels.shape)
            labels = without_axes(flow, labels, range(rank - 2), f"runs along the batch at {operator(node)}")
            if labels is not None and kept % rank in labels.axes:
                ids, value = labels.axes[kept % rank]
                axes[kept % len(shape(node))] = Axis(ids, value and UNKNOWN)
    return labelled(shape(node), axes)


def _contracted(flow: Flow, node: fx.Node, operands: Sequence[tuple[Labels | None, int]]) -> None:
    """Tie the units along the axis that is summed over; one side at least has to be zero there."""
    found = [
        labels.axes[axis % len(labels.shape)]
        for labels, axis in operands
        if labels is not None and axis % max(2, len(labels.shape)) in labels.axes
    ]
    if len(found) == 2 and 0 in (found[0].value, found[1].value):
        flow.ledger.tie(found[0].ids, found[1].ids)
        return
    for ids, _ in found:
        flow.ledger.pin_all(ids, f"meets something that is not a channel at {place(node)}")


def embedding(flow: Flow, node: fx.Node) -> Labels | None:
    """embedding(weight [n, c], indices): features are the weight's columns; its rows stay."""
    weight = flow.labels(node.args[0])
    weight = without_axes(flow, weight, [0], "is a row of an embedding")
    axis = len(shape(node)) - 1
    return weight and Labels(shape(node), {axis: weight.axes[1]})
