"""Quantisation in an ONNX graph: symmetric pairs of QuantizeLinear and DequantizeLinear, biases in floating point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from chase.exporters.precision.sites import Site

LIMITS = {"int8": 127.0, "int8-fp16": 127.0, "fp8": 448.0}
"""The largest number of each kind: int8 leaves -128 out, so that it is symmetric; fp8 is float8e4m3fn."""


def with_pairs(proto: Any, chosen: Iterable[Site], ranges: Mapping[str, float], kind: str) -> Any:
    """A copy of an ONNX model in which the inputs of `chosen` are quantised to `kind`.

    An activation has one scale, from `ranges` (the largest magnitude of each tensor), and is quantised once, whoever
    reads it. A weight has a scale for each output channel and is stored quantised. All zero points are zero.
    """
    copy = type(proto)()
    copy.CopyFrom(proto)
    sites = {site.node: site for site in chosen}
    quantiser = _Quantiser(copy.graph, kind)
    nodes = list(copy.graph.node)
    del copy.graph.node[:]
    for node in nodes:
        if site := sites.get(node.name):
            node.input[site.position] = quantiser.activation(site.tensor, ranges[site.tensor])
            if site.weight is not None:
                node.input[1] = quantiser.weight(site.weight, site.axis)
        copy.graph.node.append(node)
    _drop_unread(copy.graph)
    return copy


class _Quantiser:
    """Appends nodes and tensors to a graph; gives the names of the tensors to be read instead."""

    def __init__(self, graph: Any, kind: str) -> None:
        self._graph, self._limit, self._fp8 = graph, LIMITS[kind], kind == "fp8"
        self._weights = {each.name: each for each in graph.initializer}
        self._made: dict[str, str] = {}

    def activation(self, name: str, largest: float) -> str:
        if name not in self._made:
            scale = self._add(f"{name}_scale", torch.tensor(largest / self._limit if largest else 1.0))
            zero = self._add(f"{name}_zero_point", self._quantised(torch.zeros(())))
            rounded = f"{name}_quantized"
            self._append("QuantizeLinear", [name, scale, zero], rounded)
            self._made[name] = self._append("DequantizeLinear", [rounded, scale, zero], f"{name}_dequantized")
        return self._made[name]

    def weight(self, name: str, axis: int) -> str:
        if name not in self._made:
            from onnx.numpy_helper import to_array

            weight = torch.from_numpy(to_array(self._weights[name]).copy())
            others = [each for each in range(weight.ndim) if each != axis]
            largest = weight.abs().amax(others)
            scale = torch.where(largest > 0, largest, self._limit) / self._limit
            along = [-1 if each == axis else 1 for each in range(weight.ndim)]
            inputs = [
                self._add(f"{name}_quantized", self._quantised(weight / scale.view(along))),
                self._add(f"{name}_scale", scale),
                self._add(f"{name}_zero_point", self._quantised(torch.zeros_like(scale))),
            ]
            self._made[name] = self._append("DequantizeLinear", inputs, f"{name}_dequantized", axis=axis)
        return self._made[name]

    def _quantised(self, x: Tensor) -> Tensor:
        x = x.clamp(-self._limit, self._limit)
        return x.to(torch.float8_e4m3fn) if self._fp8 else x.round().to(torch.int8)

    def _add(self, name: str, value: Tensor) -> str:
        from onnx import TensorProto

        types = {torch.float32: TensorProto.FLOAT, torch.int8: TensorProto.INT8}
        content = value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        tensor = self._graph.initializer.add(name=name, dims=value.shape, raw_data=content)
        tensor.data_type = types.get(value.dtype, TensorProto.FLOAT8E4M3FN)
        return name

    def _append(self, operation: str, inputs: list[str], output: str, **attributes: int) -> str:
        from onnx.helper import make_node

        self._graph.node.append(make_node(operation, inputs, [output], name=output, **attributes))
        return output


def _drop_unread(graph: Any) -> None:
    """Drop the tensors that no node reads any more."""
    read = {name for node in graph.node for name in node.input} | {each.name for each in graph.output}
    kept = [each for each in graph.initializer if each.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
