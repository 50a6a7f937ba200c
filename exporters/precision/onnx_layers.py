"""The layers of an ONNX graph that torch wrote: the names that the torch.fx graph of the same network has."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from chase.exporters.precision.names import Step, names
from chase.exporters.precision.operators import EXACT

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SCOPES, _ORIGIN = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.fx_node"


def onnx_layers(graph: Any, *, within: str = "") -> dict[str, str]:
    """The layer of every node that computes, by the node's first output, in the graph's order.

    torch notes the module and the operation that each node comes from; a node without that note is a layer of its own,
    named after itself. `within` is the module that holds the network, where that is not the whole model.
    """
    weights = {each.name for each in graph.initializer}
    origins = {node.output[0]: _step(node, weights) for node in graph.node}
    steps: dict[tuple[str, ...], Step] = {}
    for key, step in origins.values():
        if step is not None:
            steps[key] = step if key not in steps or step.weight else steps[key]
    layers = dict(zip(steps, names(list(steps.values())), strict=True))
    prefix = f"{within}." if within else ""
    return {output: layers[key].removeprefix(prefix) for output, (key, step) in origins.items() if step is not None}


def _step(node: Any, weights: set[str]) -> tuple[tuple[str, ...], Step | None]:
    """What a node is part of, and that as a step if it computes."""
    notes: Mapping[str, str] = {each.key: each.value for each in node.metadata_props}
    weight = node.input[1] if node.op_type in WEIGHTED and node.input[1] in weights else None
    if _SCOPES not in notes:
        return (node.output[0],), Step(node.name or node.output[0], node.op_type.lower(), weight)
    scopes = tuple(ast.literal_eval(notes[_SCOPES]))
    found = re.search(r"torch\.ops\.aten\.(\w+)", notes.get(_ORIGIN, ""))
    operation = found[1] if found else ""
    if not operation or operation in EXACT or operation == "sym_size":
        return scopes, None
    module = scopes[-2] if len(scopes) > 1 else ""
    if weight is not None and "batch_norm" in operation:  # folded into what stood before it, whose note is lost
        module, operation = weight.removesuffix(".weight"), node.op_type.lower()
    return scopes, Step(module, operation.strip("_"), weight)
