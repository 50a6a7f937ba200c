"""A network that computes in fp16 or bf16 inside, and takes and gives float32."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from chase.exporters.precision.graph import assembled, tensors_of
from chase.exporters.precision.operators import is_float, packet, rounded_scalars
from chase.exporters.precision.plan import in_full


def halved(module: fx.GraphModule, dtype: torch.dtype, keep_fp32: Collection[str] = ()) -> fx.GraphModule:
    """A flat graph (`chase.exporters.precision.graph.flat`) computing in `dtype`, but for the layers of `keep_fp32`.

    A cast stands exactly where the precision changes; a weight is stored in the precision that it is used in, or in
    float32 if it is used in both. What only hands numbers on (views, ReLU, max pooling) works in the precision that it
    is given.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    casts: dict[fx.Node, fx.Node] = {}
    full = in_full(module.graph, keep_fp32)

    def cast(copy: fx.Node, to: torch.dtype) -> fx.Node:
        return graph.call_function(torch.ops.aten._to_copy.default, (copy,), {"dtype": to})

    def given(source: fx.Node, user: fx.Node) -> fx.Node:
        if not is_float(source) or full[source] == full[user]:
            return copies[source]
        if source not in casts:
            casts[source] = cast(copies[source], torch.float32 if full[user] else dtype)
        return casts[source]

    for node in module.graph.nodes:
        arguments = (node.args, node.kwargs) if full[node] else _reduced(node, dtype)
        args, kwargs = fx.node.map_arg(arguments, functools.partial(given, user=node))
        copies[node] = graph.create_node(*_call(node), args, kwargs, name=node.name)
        if node.op == "placeholder" and not full[node]:
            copies[node] = cast(copies[node], dtype)
    reduced = {str(node.target) for node in module.graph.find_nodes(op="get_attr") if is_float(node) and not full[node]}
    tensors = {name: x.to(dtype) if name in reduced else x for name, x in tensors_of(module).items()}
    return assembled(graph, tensors)


def _reduced(node: fx.Node, dtype: torch.dtype) -> Any:
    """The arguments of a node with its numbers, and the float32 that it may ask for, in `dtype`."""
    return pytree.tree_map(lambda each: dtype if each is torch.float32 else each, rounded_scalars(node, dtype))


def _call(node: fx.Node) -> tuple[str, Any]:
    """How a node is called: where sizes depend on the batch, by the method, which alone `torch.jit.trace` follows."""
    name = "size" if packet(node) == "sym_size" else packet(node)
    sizes = [source for source in node.all_input_nodes if isinstance(source.meta.get("val"), torch.SymInt)]
    if not name or not (sizes or name == "size"):
        return node.op, node.target
    if isinstance(node.args[0], fx.Node) and hasattr(Tensor, name):
        return "call_method", name
    return "call_function", getattr(torch, name, node.target)
