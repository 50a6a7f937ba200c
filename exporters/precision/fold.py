"""What a graph can be spared: computing with weights alone, and BatchNorm behind a convolution or a linear layer."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from chase.exporters.precision.operators import WEIGHTED, packet

_NORM = "_native_batch_norm_legit_no_training"
_FOLDED = "folded"  # the module that holds tensors which the model has no name for


@torch.no_grad()
def fold_constants(graph: fx.Graph, tensors: dict[str, Tensor]) -> None:
    """Replace what depends on weights alone by its value; `tensors` are those that get_attr nodes name."""
    values: dict[fx.Node, Any] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr":
            values[node] = tensors[node.target]
        elif _is_constant(node, values):
            values[node] = _value(node, values)
    for node, value in values.items():
        if node.op != "get_attr" and isinstance(value, Tensor) and any(user not in values for user in node.users):
            name = f"{_FOLDED}.{node.name}"
            tensors[name] = value.contiguous()
            with graph.inserting_before(node):
                node.replace_all_uses_with(_constant(graph, tensors, name))


def fold_norms(graph: fx.Graph, tensors: dict[str, Tensor]) -> None:
    """Fold BatchNorm in eval mode into what feeds it alone; what is left becomes an operation with one result."""
    for result in graph.find_nodes(op="call_function", target=operator.getitem):
        norm = result.args[0]
        if packet(norm) == _NORM and result.args[1] == 0:
            source = norm.args[0]
            if _can_fold(source, norm):
                _fold(graph, tensors, source, norm)
                result.replace_all_uses_with(source)
            else:
                _as_batch_norm(graph, norm, result)
    graph.eliminate_dead_code()


def _is_constant(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    if node.op != "call_function" or isinstance(node.target, torch._ops.HigherOrderOperator):
        return False
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        return False
    sources = node.all_input_nodes[1:] if packet(node).startswith("new_") else node.all_input_nodes
    return all(source in values for source in sources) and _is_static(node)


def _is_static(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return not isinstance(value, Tensor) or all(isinstance(side, int) for side in value.shape)


def _value(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    def given(source: fx.Node) -> Any:  # new_zeros and the like read but the type of what is not constant
        return values[source] if source in values else torch.empty(0, dtype=source.meta["val"].dtype)

    call: Any = node.target
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), given)
    return call(*args, **kwargs)


def _can_fold(source: fx.Node, norm: fx.Node) -> bool:
    if packet(source) not in WEIGHTED or len(source.users) > 1:
        return False
    tensors: list[Any] = [*source.args[1:3], *norm.args[1:5]]
    constant = all(each is None or each.op == "get_attr" for each in tensors)
    return constant and (packet(source) != "linear" or source.meta["val"].ndim == 2)


@torch.no_grad()
def _fold(graph: fx.Graph, tensors: dict[str, Tensor], source: fx.Node, norm: Any) -> None:
    """Scale the weight and the bias of `source`, in float64, as the norm behind it would scale its result."""

    def double(node: fx.Node | None, default: float) -> Tensor:
        return torch.tensor(default).double() if node is None else tensors[str(node.target)].double()

    args: list[Any] = [*source.args, *[None] * (3 - len(source.args))]
    gamma, beta, mean, variance = (double(norm.args[place], default) for place, default in enumerate((1, 0, 0, 1), 1))
    scale = gamma / (variance + norm.args[6]).sqrt()
    weight = double(args[1], 0)
    rows = scale[:, None]
    if "transpose" in packet(source):  # [in, out / groups, ...], where the groups lie along the inputs
        groups = args[6] if len(args) > 6 else 1
        rows = scale.reshape(groups, 1, -1).expand(-1, len(weight) // groups, -1).flatten(0, 1)
    values = weight * rows.reshape(*rows.shape, *[1] * (weight.ndim - 2)), (double(args[2], 0) - mean) * scale + beta
    stem = str(args[1].target).removesuffix(".weight")
    with graph.inserting_before(source):
        for place, (part, value) in enumerate(zip(("weight", "bias"), values, strict=True), 1):
            alone = args[place] is None or list(args[place].users) == [source]
            name = f"{stem}.{part}" if alone else f"{_FOLDED}.{source.name}.{part}"
            tensors[name] = value.float()
            args[place] = _constant(graph, tensors, name)
    source.args = tuple(args)


def _as_batch_norm(graph: fx.Graph, norm: fx.Node, result: fx.Node) -> None:
    with graph.inserting_after(norm):
        args = (*norm.args[:5], False, *norm.args[5:], False)
        plain = graph.call_function(torch.ops.aten.batch_norm.default, args)
    plain.meta = {**norm.meta, "val": result.meta["val"]}
    result.replace_all_uses_with(plain)


def _constant(graph: fx.Graph, tensors: dict[str, Tensor], name: str) -> fx.Node:
    node = graph.get_attr(name)
    node.meta["val"] = tensors[name]
    return node
