"""What each operator does to units: one rule an operator, in one table.

A rule takes the propagation and a node and returns the labels of its result (None: no units). An operator without
a rule holds every unit that reaches it, so nothing is ever guessed. Add a rule with
`RULES["aten.my_operator"] = rule`, or `RULES["my_library.my_operator"] = rule`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import fx

from chase.slimming.units import NO_UNIT, Labels, Ledger
from chase.tracing import operator, shape


class Flow(Protocol):
    """What a rule may ask and say (see `chase.slimming.groups.Propagation`)."""

    ledger: Ledger

    def labels(self, node: object) -> Labels | None:
        """The units of an argument."""

    def tensor_name(self, node: object) -> str | None:
        """The parameter or buffer that an argument is."""

    def rejoin(self, node: fx.Node) -> None:
        """Mark the units that run along the skip connection which ends at `node`."""


Rule = Callable[[Flow, fx.Node], Labels | None]


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """An operator's argument, given by position or by name."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def hold(flow: Flow, node: fx.Node, reason: str) -> None:
    """Pin the units of every input of `node`."""
    for source in node.all_input_nodes:
        flow.ledger.pin(flow.labels(source), reason)


def unknown(flow: Flow, node: fx.Node) -> None:
    """No rule: hold everything."""
    hold(flow, node, f"reaches {operator(node) or node.name}, which has no rule")


def checks(flow: Flow, node: fx.Node) -> None:
    """An assertion that `torch.export` writes beside a conversion; it does nothing to units."""


def keeps_zero(flow: Flow, node: fx.Node) -> Labels | None:
    """Element by element, and zero stays zero: ReLU, GELU, SiLU, dropout, pooling over space."""
    source = flow.labels(node.args[0])
    if source is None or shape(node)[: source.dim + 1] != source.shape[: source.dim + 1]:
        flow.ledger.pin(source, f"is reshaped by {operator(node)}")
        return None
    return Labels(source.dim, source.ids, shape(node), source.constant)


def clamps(flow: Flow, node: fx.Node) -> Labels | None:
    """Hardtanh and ReLU6 keep zero where their range holds it."""
    low, high = argument(node, 1, "min_val", -1), argument(node, 2, "max_val", 1)
    if low <= 0 <= high:
        return keeps_zero(flow, node)
    return constant(flow, node)


def constant(flow: Flow, node: fx.Node) -> Labels | None:
    """Element by element, and zero becomes a constant: sigmoid, softplus, exp."""
    source = keeps_zero(flow, node)
    return Labels(source.dim, source.ids, source.shape, True) if source else None


def moves(flow: Flow, node: fx.Node) -> Labels | None:
    """Only moves elements (view, flatten, permute): run the operator itself on the unit of every element."""
    source = flow.labels(node.args[0])
    if source is None:
        return None
    # `full` has strides of 0, which a view of the real activation does not have to cope with.
    move: Any = torch.ops.aten.reshape if operator(node) == "aten.view" else node.target
    full = move(source.full(), *node.args[1:], **node.kwargs)
    result = Labels.of(full, source.constant)
    if result is None:
        flow.ledger.pin(source, f"is mixed with other axes by {operator(node)}")
    return result


def averages(flow: Flow, node: fx.Node) -> Labels | None:
    """A mean over axes other than that of the channels."""
    source = flow.labels(node.args[0])
    if source is None:
        return None
    axes = argument(node, 1, "dim") or []
    gone = {axis % len(source.shape) for axis in ([axes] if isinstance(axes, int) else axes)}
    if not gone or source.dim in gone:
        flow.ledger.pin(source, f"is summed over channels by {operator(node)}")
        return None
    kept = argument(node, 2, "keepdim", False)
    dim = source.dim if kept else source.dim - sum(axis < source.dim for axis in gone)
    return Labels(dim, source.ids, shape(node), source.constant)


def contraction(flow: Flow, node: fx.Node, channel_dim: int) -> Labels | None:
    """A convolution or linear layer: its columns belong to the units that come in, its rows make new ones."""
    weight, bias = flow.tensor_name(node.args[1]), flow.tensor_name(argument(node, 2, "bias"))
    source = flow.labels(node.args[0])
    if weight is None:
        unknown(flow, node)
        return None
    rank = len(shape(node))
    columns = torch.full(shape(argument(node, 1, "weight"))[1:2], NO_UNIT)  # they stay, also in another use
    if source is not None and (source.constant or source.dim != channel_dim % rank):
        reason = "arrives as a constant" if source.constant else "is not the channel axis"
        flow.ledger.pin(source, f"{reason} at {weight.removesuffix('.weight')}")
    elif source is not None:
        columns = source.ids
    flow.ledger.own(weight, 1, columns)
    units = flow.ledger.produce(weight, shape(node)[channel_dim])
    flow.ledger.own(weight, 0, units)
    if bias is not None:
        flow.ledger.own(bias, 0, units)
    return Labels(channel_dim % rank, units, shape(node))


def convolution(flow: Flow, node: fx.Node) -> Labels | None:
    """conv(input [b, c, ...], weight, bias, stride, padding, dilation, groups)."""
    if argument(node, 6, "groups", 1) != 1:
        hold(flow, node, f"reaches the grouped convolution {flow.tensor_name(node.args[1])}")
        return None
    return contraction(flow, node, 1)


def linear(flow: Flow, node: fx.Node) -> Labels | None:
    """linear(input [..., features], weight, bias)."""
    return contraction(flow, node, -1)


def batch_norm(flow: Flow, node: fx.Node) -> Labels | None:
    """batch_norm(input [b, c, ...], weight, bias, running_mean, running_var, ...): γ = β = 0 silences a unit."""
    source = flow.labels(node.args[0])
    if source is None or source.dim != 1:
        flow.ledger.pin(source, "is not the channel axis of a norm")
        return None
    names = [flow.tensor_name(value) for value in node.args[1:5]]
    for name in filter(None, names):
        flow.ledger.own(name, 0, source.ids)
    affine = names[0] is not None and names[1] is not None
    return Labels(1, source.ids, source.shape, constant=not affine)


def add(flow: Flow, node: fx.Node) -> Labels | None:
    """A sum of two branches ties their channels: a skip connection. A constant added makes zero a constant."""
    ours, theirs = flow.labels(node.args[0]), flow.labels(node.args[1])
    if not isinstance(node.args[1], fx.Node):
        return constant(flow, node)
    if ours is None or theirs is None or (ours.dim, ours.shape) != (theirs.dim, theirs.shape):
        hold(flow, node, f"meets something that is not a channel at {node.name}")
        return None
    flow.ledger.tie(ours.ids, theirs.ids)
    flow.rejoin(node)
    return Labels(ours.dim, ours.ids, shape(node), ours.constant or theirs.constant)


def scale(flow: Flow, node: fx.Node) -> Labels | None:
    """A product with a number keeps zero; a product of two tensors has no rule yet."""
    if not isinstance(node.args[1], fx.Node):
        return keeps_zero(flow, node)
    unknown(flow, node)
    return None


ZERO_KEEPERS = """
relu relu_ gelu silu silu_ hardswish hardswish_ mish mish_ elu elu_ leaky_relu leaky_relu_ tanh tanh_
dropout dropout_ feature_dropout max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d
contiguous clone alias detach detach_ lift_fresh_copy to
"""
MOVERS = "view reshape flatten permute transpose squeeze unsqueeze"
CONSTANT_MAKERS = "sigmoid sigmoid_ hardsigmoid hardsigmoid_ softplus exp"

RULES: dict[str, Rule] = {
    **{f"aten.{name}": keeps_zero for name in ZERO_KEEPERS.split()},
    **{f"aten.{name}": moves for name in MOVERS.split()},
    **{f"aten.{name}": constant for name in CONSTANT_MAKERS.split()},
    **{f"aten.{name}": clamps for name in ("hardtanh", "hardtanh_", "relu6", "relu6_")},
    **{f"aten.{name}": add for name in ("add", "add_", "sub", "sub_")},
    **{f"aten.{name}": scale for name in ("mul", "mul_", "div", "div_")},
    **{f"aten.{name}": convolution for name in ("conv1d", "conv2d", "conv3d")},
    "aten._assert_tensor_metadata": checks,
    "aten.linear": linear,
    "aten.batch_norm": batch_norm,
    "aten.mean": averages,
}
