"""A network's forward pass as one flat graph of float32 operations: constants and BatchNorm folded, layers named."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from chase.errors import ExportError, reason
from chase.exporters.job import exported
from chase.exporters.precision.fold import fold_constants, fold_norms
from chase.exporters.precision.names import Step, names
from chase.exporters.precision.operators import WEIGHTED, Kind, kind, packet
from chase.tracing import caller, quiet


def flat(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """The forward pass of a model in eval mode as one graph, for inputs like `example` [b, ...] and any batch size.

    Nothing in it works in place, what depends on weights alone is computed, and BatchNorm is folded into what feeds it
    alone. `node.meta["layer"]` names the layer of every node that computes.

    Raises:
        ExportError: if torch.export cannot follow the model.
    """
    program = exported(model, example)
    try:
        with quiet():
            module: Any = program.run_decompositions({}).module(check_guards=False)
    except Exception as error:  # torch runs its own rules for every operation of the model
        raise ExportError(f"torch.export cannot make {type(model).__name__} functional: {reason(error)}") from error
    graph = _plain(module.graph)
    tensors = tensors_of(module)
    fold_constants(graph, tensors)
    fold_norms(graph, tensors)
    _name_layers(graph)
    return assembled(graph, tensors)


def layers(module: fx.GraphModule) -> tuple[str, ...]:
    """The names of the layers of a flat graph, in the order in which they begin."""
    return tuple(dict.fromkeys(node.meta["layer"] for node in module.graph.nodes if "layer" in node.meta))


def tensors_of(module: fx.GraphModule) -> dict[str, Tensor]:
    """The tensors that a graph reads, by their names."""
    found = {str(node.target) for node in module.graph.find_nodes(op="get_attr")}
    return {name: operator.attrgetter(name)(module).detach() for name in found}


def assembled(graph: fx.Graph, tensors: dict[str, Tensor]) -> fx.GraphModule:
    """A module of a graph and the tensors that its get_attr nodes name."""
    graph.eliminate_dead_code()
    graph.lint()
    used = {str(node.target): tensors[str(node.target)] for node in graph.find_nodes(op="get_attr")}
    held = {name: nn.Parameter(x, requires_grad=False) if x.is_floating_point() else x for name, x in used.items()}
    return fx.GraphModule(held, graph).eval()


def _plain(program: fx.Graph) -> fx.Graph:
    """A copy with one tensor in, one tensor out, and nothing that holds for one type or one order in memory alone."""
    graph = fx.Graph()
    results: Any = graph.graph_copy(program, {})
    graph.output(results[0])
    for node in graph.nodes:
        if packet(node).startswith(("_assert", "sym_constrain")):
            graph.erase_node(node)
        elif packet(node) in ("view", "_unsafe_view"):
            node.target = torch.ops.aten.reshape.default
    return graph


def _name_layers(graph: fx.Graph) -> None:
    nodes = [node for node in graph.nodes if kind(node) is Kind.COMPUTES]
    for node, name in zip(nodes, names([_step(node) for node in nodes]), strict=True):
        node.meta["layer"] = name


def _step(node: fx.Node) -> Step:
    weight = node.args[1] if packet(node) in WEIGHTED else None
    name = str(weight.target) if isinstance(weight, fx.Node) and weight.op == "get_attr" else None
    return Step(caller(node), packet(node).strip("_"), name)
