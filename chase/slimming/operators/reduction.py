"""Operators that look at many elements at once: pooling, means, norms, softmax."""

from __future__ import annotations

import math
import re

from torch import fx, nn

from chase.slimming.norms import wide
from chase.slimming.operators.rule import Flow, argument, axes_of, hold, labelled, own_vector, stays, without_axes
from chase.slimming.units import UNKNOWN, Axis, Labels
from chase.tracing import operator, shape


def pools(flow: Flow, node: fx.Node) -> Labels | None:
    """Pooling and resizing over the last one, two or three axes; channels are not among them."""
    match = re.search(r"([123])d", operator(node))
    rank = len(shape(node))
    spatial = range(rank - int(match[1]) if match else 0, rank)
    source = without_axes(flow, flow.labels(node.args[0]), spatial, f"is pooled by {operator(node)}")
    return source and source.mapped(lambda value: value and _pooled(node, value), shape(node))


def _pooled(node: fx.Node, value: float) -> float:
    """A constant stays one, unless it is averaged with the zeros around the image, or with a divisor of its own."""
    padding = argument(node, 3, "padding", 0)
    padded = any(padding) if isinstance(padding, list | tuple) else padding
    moved = padded or argument(node, 6, "divisor_override") is not None
    return UNKNOWN if "avg_pool" in operator(node) and "adaptive" not in operator(node) and moved else value


def resizes(flow: Flow, node: fx.Node) -> Labels | None:
    """Interpolation over all axes but the first two."""
    source = flow.labels(node.args[0])
    source = without_axes(flow, source, range(2, len(shape(node))), f"is resized by {operator(node)}")
    return source and source.shaped(shape(node))


def reduces(flow: Flow, node: fx.Node) -> Labels | None:
    """mean, sum, max, var, norm over some axes: over channels, only a sum may lose those that are zero."""
    source = flow.labels(node.args[0])
    if source is None:
        return None
    kind, rank = operator(node).removeprefix("aten."), len(source.shape)
    position = 2 if kind == "linalg_vector_norm" else 1
    gone = axes_of(argument(node, position, "dim"), rank)
    mixed = {a for a in gone if not (kind == "sum" and a in source.axes and source.axes[a].value == 0)}
    source = without_axes(flow, source, mixed, f"is reduced over channels by {operator(node)}")
    if source is None:
        return None
    kept = len(shape(node)) == rank
    axes = {
        a if kept else a - sum(axis < a for axis in gone): entry for a, entry in source.axes.items() if a not in gone
    }
    keeps_value = kind in ("mean", "amax", "amin")
    return labelled(
        shape(node), {a: Axis(ids, value if keeps_value else value and UNKNOWN) for a, (ids, value) in axes.items()}
    )


def softmax(flow: Flow, node: fx.Node) -> Labels | None:
    """softmax(input, dim): a dead unit gets a share like any other."""
    source = flow.labels(node.args[0])
    if source is None:
        return None
    axis = argument(node, 1, "dim") % len(source.shape)
    source = stays(flow, source, [axis], f"is normalised over channels by {operator(node)}")
    return source and source.mapped(lambda _: UNKNOWN)


def batch_norm(flow: Flow, node: fx.Node) -> Labels | None:
    """batch_norm(input [b, c, ...], γ, β, mean, var, training, ...): γ = β = 0 silences a unit."""
    training = bool(argument(node, 5, "training", False))
    return _channel_norm(flow, node, own_statistics=training)


def instance_norm(flow: Flow, node: fx.Node) -> Labels | None:
    """instance_norm(input [b, c, ...], γ, β, mean, var, use_input_stats, ...)."""
    return _channel_norm(flow, node, own_statistics=bool(argument(node, 5, "use_input_stats", True)))


def _channel_norm(flow: Flow, node: fx.Node, *, own_statistics: bool) -> Labels | None:
    source = flow.labels(node.args[0])
    rank = len(shape(node))
    source = without_axes(flow, source, {0, *range(2, rank)}, f"is averaged over by {operator(node)}")
    if source is None:
        return None
    vectors = [arg if isinstance(arg, fx.Node) else None for arg in node.args[1:5]]
    gamma, beta, *_ = [own_vector(flow, vector, source.axes[1].ids) for vector in vectors]
    silent = vectors[0] is not None and gamma == 0
    return source.mapped(lambda value: beta if silent or (own_statistics and not math.isnan(value)) else UNKNOWN)


def group_norm(flow: Flow, node: fx.Node) -> Labels | None:
    """group_norm(input [b, c, ...], groups, γ, β): the channels of a group leave together, and the group with them."""
    count, gamma, beta = node.args[1], argument(node, 2, "weight"), argument(node, 3, "bias")
    source = flow.labels(node.args[0])
    rank = len(shape(node))
    source = without_axes(flow, source, {0, *range(2, rank)}, f"is averaged over by {operator(node)}")
    if source is None:
        return None
    name = flow.tensor_name(gamma)
    if count == 1 or name is None or not issubclass(_caller(flow, node, name), nn.GroupNorm):
        return stays(flow, source, [1], "shares statistics with other channels at a GroupNorm")
    ids = source.axes[1].ids
    rows = ids.view(count, -1)  # type: ignore[arg-type]
    for column in rows.T[1:]:
        flow.ledger.tie(rows[:, 0], column)
    silent, added = own_vector(flow, gamma, ids) == 0, own_vector(flow, beta, ids)
    return source.mapped(lambda value: added if silent or not math.isnan(value) else UNKNOWN)


def _caller(flow: Flow, node: fx.Node, tensor: str) -> type:
    """The class of the module that owns a tensor, if `node` is part of its own forward pass."""
    kind = flow.owner(tensor)
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return kind if stack and stack[-1][1] in (kind, f"{kind.__module__}.{kind.__qualname__}") else nn.Module


def layer_norm(flow: Flow, node: fx.Node) -> Labels | None:
    """layer_norm(input, normalized_shape, γ, β): a mean over fewer channels is another mean."""
    last: list[int] = list(node.args[1])  # type: ignore[arg-type]
    rank = len(shape(node))
    source = flow.labels(node.args[0])
    if flow.freedoms.norms and len(last) == 1 and (freed := _wide_norm(flow, node, source)) is not None:
        return freed
    source = stays(flow, source, range(rank - len(last), rank), f"meets {_norm_name(node)} over channels")
    beta = argument(node, 3, "bias") if operator(node) == "aten.layer_norm" else None
    return source and source.mapped(lambda value: value if value == 0 and beta is None else UNKNOWN)


def _wide_norm(flow: Flow, node: fx.Node, source: Labels | None) -> Labels | None:
    """LayerNorm that divides by its dense width (see `chase.slimming.norms`), where that is what it can become."""
    axis, gamma, beta = len(shape(node)) - 1, argument(node, 2, "weight"), argument(node, 3, "bias")
    name = flow.tensor_name(gamma)
    if source is None or operator(node) != "aten.layer_norm" or name is None or wide(_caller(flow, node, name)) is None:
        return None
    entry = source.axes.get(axis)
    if entry is None or entry.value != 0:
        return None
    own_vector(flow, gamma, entry.ids)
    own_vector(flow, beta, entry.ids)
    others = source.mapped(lambda value: UNKNOWN).axes
    return Labels(source.shape, {**others, axis: Axis(entry.ids)})


def _norm_name(node: fx.Node) -> str:
    return "RMSNorm" if "rms" in operator(node) else "LayerNorm"


def attention(flow: Flow, node: fx.Node) -> Labels | None:
    """scaled_dot_product_attention(q, k, v [b, heads, n, d]) scales by d, so single channels of q, k and v stay.

    A whole head may leave: its values are zero.
    """
    heads = [labels.axes.get(1) for labels in map(flow.labels, node.args[:3]) if labels is not None]
    if not flow.freedoms.heads or len(shape(node)) != 4 or len(heads) < 3 or any(axis is None for axis in heads):
        hold(flow, node, "is part of an attention head")
        return None
    entries = [axis for axis in heads if axis is not None]
    for source in map(flow.labels, node.args[:3]):
        without_axes(flow, source, {0, 2, 3}, "is part of an attention head")
    for entry in entries[1:]:
        flow.ledger.tie(entries[0].ids, entry.ids)
    return Labels(shape(node), {1: Axis(entries[0].ids, 0.0 if entries[2].value == 0 else UNKNOWN)})
