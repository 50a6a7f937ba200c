"""Profile of an ONNX file: the nodes that ONNX Runtime runs after its optimisations, by the layers they come from."""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chase.artifact import Artifact
from chase.benchmarks.layers import BLOCKED, REST, ROUNDS, Layer, Widths, rows, typical
from chase.packages import require

WEIGHTED = ("Conv", "Gemm")  # and what fusion and quantisation make of them, which ends alike
ROUNDED = ("QuantizeLinear", "DequantizeLinear", "Cast")
JOINED = (
    *ROUNDED,
    *("Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "HardSwish", "Add", "BatchNormalization"),
)


def profile_onnx(artifact: Artifact, x: Tensor, *, threads: int | None, rounds: int = ROUNDS) -> list[Layer]:
    """The nodes of an ONNX file as ONNX Runtime runs them on the CPU after its optimisations; fields as above.

    A convolution in blocks of channels is called "Conv (blocked)"; what moves data in and out of blocks begins with
    "Reorder". A node that goes back to a weight has the name of the layer.

    Raises:
        MissingDependency: if onnxruntime or onnx is not installed.
    """
    onnx = require("onnx", purpose="profiling an ONNX file", install="onnx")
    graph = onnx.load(str(artifact.path), load_external_data=False).graph
    with tempfile.TemporaryDirectory() as folder:
        events = _profiled(artifact, x, Path(folder), threads=threads, rounds=rounds)
    names, times = _Names(graph), defaultdict[str, float](float)
    ops: dict[str, str] = {}
    macs: dict[str, int] = {}
    widths: Widths = {}
    for event, spent_us in _typical_nodes(events, rounds):
        node = event["name"].removesuffix("_kernel_time")
        operator = event["args"]["op_name"]
        maker = names.maker(node) if operator.endswith(WEIGHTED) else None
        layer = names.layer(maker) if maker else node
        ops[layer] = BLOCKED if node.endswith("_nchwc") and operator == "Conv" else operator
        times[layer] += spent_us / 1000
        if maker is not None:
            widths[layer] = names.width(maker)
            macs[layer] = names.macs(maker, event["args"]["output_type_shape"])
    whole = [event["dur"] / 1000 for event in events if event["name"] == "model_run"][-rounds:]
    rest = max(0.0, typical(whole) - sum(times.values()))
    return rows({**times, REST: rest}, {**ops, REST: "runtime"}, macs, widths)


class _Names:
    """Which node with a weight one of the optimised graph goes back to: it is called like a node or a value of the
    file."""

    def __init__(self, graph: Any) -> None:
        self._shapes = {each.name: tuple(each.dims) for each in graph.initializer}
        self._makers = {output: node for node in graph.node for output in node.output}
        self._nodes = {node.name: node for node in graph.node}

    def maker(self, name: str) -> Any:
        """The node with a weight that has this name, or the one before it that fusion has joined to it, or None."""
        name = name.removeprefix("InsertedPrecisionFreeCast_").removesuffix("_nchwc")
        node = self._nodes.get(name) or self._makers.get(name)
        while node is not None and node.op_type in JOINED:
            node = self._makers.get(node.input[0])
        return node if node is not None and node.op_type in WEIGHTED and self._weight(node) else None

    def _weight(self, node: Any) -> str | None:
        """The name of a node's weight, before it was quantised or rounded; None if it is computed."""
        name = node.input[1]
        while name not in self._shapes:
            maker = self._makers.get(name)
            if maker is None or maker.op_type not in ROUNDED:
                return None
            name = maker.input[0]
        return str(name)

    def layer(self, node: Any) -> str:
        """The name of the layer: that of its weight."""
        return (self._weight(node) or node.name).partition(".weight")[0]

    def _shape(self, node: Any) -> tuple[int, ...]:
        return self._shapes[self._weight(node) or ""]

    def width(self, node: Any) -> tuple[int, int]:
        """Input and output channels."""
        shape, settings = self._shape(node), {each.name: each.i for each in node.attribute}
        if node.op_type == "Gemm":
            return (shape[1], shape[0]) if settings.get("transB") else (shape[0], shape[1])
        return shape[1] * settings.get("group", 1), shape[0]

    def macs(self, node: Any, outputs: Sequence[Mapping[str, Sequence[int]]]) -> int:
        """Of the whole batch: every entry of the weight meets every position of the answer."""
        images, *sides = next(iter(outputs[0].values()))
        entries: int = math.prod(self._shape(node))
        return entries * images * (math.prod(sides[1:]) if node.op_type == "Conv" else 1)


def _profiled(artifact: Artifact, x: Tensor, folder: Path, *, threads: int | None, rounds: int) -> list[dict[str, Any]]:
    """The events that ONNX Runtime noted in two runs of warm-up and `rounds` more."""
    onnxruntime = require("onnxruntime", purpose="profiling an ONNX file", install="onnxruntime")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads or torch.get_num_threads()
    settings.log_severity_level = 4
    settings.enable_profiling = True
    settings.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(str(artifact.path), settings, providers=["CPUExecutionProvider"])
    for _ in range(rounds + 2):
        session.run(None, {session.get_inputs()[0].name: x.numpy()})
    events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    return events


def _typical_nodes(events: Iterable[dict[str, Any]], rounds: int) -> Iterator[tuple[dict[str, Any], float]]:
    """Each node with its microseconds, in the order in which they run."""
    spent: dict[str, list[float]] = defaultdict(list)
    last: dict[str, dict[str, Any]] = {}
    for event in events:
        if event["name"].endswith("_kernel_time"):
            spent[event["name"]].append(event["dur"])
            last[event["name"]] = event
    for name, event in last.items():
        yield event, typical(spent[name][-rounds:])
