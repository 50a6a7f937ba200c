"""ONNX files for the tests of TensorRT, made by hand: with torch's exporter, each would take seconds."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = (3, 8, 8)
CLASSES = 5

_TYPES = {
    "fp32": (np.float32, TensorProto.FLOAT),
    "fp16": (np.float16, TensorProto.FLOAT16),
    "bf16": (ml_dtypes.bfloat16, TensorProto.BFLOAT16),
    "int8": (np.float32, TensorProto.FLOAT),
    "fp8": (np.float32, TensorProto.FLOAT),
}
_QUANTISED = {"int8": (np.int8, 127), "fp8": (ml_dtypes.float8_e4m3fn, 448)}  # and their largest number


class Graph:
    """A graph that grows node by node, in one precision."""

    def __init__(self, precision: str) -> None:
        self.array, self.type = _TYPES[precision]
        self.quantised, self.largest = _QUANTISED.get(precision, (None, 0))
        self.random = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def constant(self, value: Any) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, *shape: int) -> str:
        """Random weights; for int8 and fp8, with a scale for every output channel."""
        values = self.random.standard_normal(shape).astype(self.array)
        if self.quantised is None or len(shape) == 1:
            return self.constant(values)
        scale = self.constant(np.abs(values).reshape(shape[0], -1).max(axis=1) / np.float32(self.largest))
        zero = self.constant(np.zeros(shape[0], self.quantised))
        quantised = self.add("QuantizeLinear", self.constant(values), scale, zero, axis=0)
        return self.add("DequantizeLinear", quantised, scale, zero, axis=0)

    def activation(self, x: str) -> str:
        if self.quantised is None:
            return x
        scale, zero = self.constant(np.float32(0.1)), self.constant(self.quantised(0))
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, scale, zero), scale, zero)

    def convolution(self, x: str, before: int, after: int, groups: int = 1) -> str:
        weights = self.weight(after, before // groups, 3, 3), self.weight(after)
        x = self.add("Conv", self.activation(x), *weights, pads=[1, 1, 1, 1], group=groups)
        return self.add("Relu", x)

    def linear(self, x: str, before: int) -> str:
        return self.add("Gemm", self.activation(x), self.weight(CLASSES, before), self.weight(CLASSES), transB=1)


def network(
    *widths: tuple[int, int], precision: str = "fp32", batch: str | int = "batch", size: Any = 8, odd: str = ""
) -> bytes:
    """A network of convolutions, each of (width, groups), whose input is "input" and output "logits".

    `batch` and `size` name open dimensions; `odd` is the operator of a node "strange" that nobody knows.
    """
    graph, channels = Graph(precision), SHAPE[0]
    x = "input" if graph.type == TensorProto.FLOAT else graph.add("Cast", "input", to=graph.type)
    for width, groups in widths or ((4, 1),):
        x, channels = graph.convolution(x, channels, width, groups), width
    if odd:
        graph.nodes.append(helper.make_node(odd, [x], ["strange_out"], name="strange", domain="nowhere"))
        x = "strange_out"
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    graph.add("Cast", graph.linear(x, channels), to=TensorProto.FLOAT)
    graph.nodes[-1].output[0] = "logits"
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, SHAPE[0], size, size])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])]
    made = helper.make_graph(graph.nodes, "network", inputs, outputs, graph.weights)
    domains = [helper.make_opsetid("", 22), helper.make_opsetid("nowhere", 1)]
    model = helper.make_model(made, opset_imports=domains, ir_version=10)
    if not odd:
        onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content
