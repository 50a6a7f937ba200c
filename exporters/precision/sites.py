"""Where an ONNX graph is quantised: in the layout that TensorRT fuses, and where it pays."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chase.exporters.precision.onnx_layers import onnx_layers

SMALLEST = 16
"""The fewest channels in and out of what is quantised: integer units work on blocks of 16 or 32."""
WEIGHTED = ("Conv", "Gemm", "MatMul")
"""The operations whose products are quantised."""
LARGEST_KERNEL_IN_FP8 = 32
"""The most positions of a kernel for which there are convolutions in fp8."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Site:
    """An input of a node that is quantised, unless one of `layers` stays as it is.

    `weight` is the node's weight, which is quantised too, and `axis` the one of its output channels.
    """

    layers: tuple[str, ...]
    node: str
    position: int
    tensor: str
    weight: str | None = None
    axis: int = 0


def sites(graph: Any, kind: str, *, within: str = "") -> tuple[Site, ...]:
    """Every input to be quantised to `kind` (int8, int8-fp16 or fp8), in the graph's order.

    These are the inputs and weights of convolutions and of products with a weight, but not what comes out of them; and
    where a convolution ends in a sum, the sum's other input: what the convolution gives is left alone, so that it, the
    sum and a ReLU become one kernel. Left alone are products of two activations (attention stays in floating point),
    sums that no convolution ends in, and what is too small to gain by it.
    """
    layers = onnx_layers(graph, within=within)
    shapes = {each.name: tuple(each.dims) for each in graph.initializer}
    found: dict[str, Site] = {}
    depth = _depths(graph)
    images = _images(graph, depth)
    for node in graph.node:
        if node.op_type in WEIGHTED and _pays(node, shapes, kind, first=node.input[0] in images):
            layer = layers.get(node.output[0], node.name)
            found[node.name] = Site((layer,), node.name, 0, node.input[0], node.input[1], _axis(node))
    for node, branch, position in _sums(graph, depth, set(found)):
        names = layers.get(node.output[0], node.name), *found[branch].layers
        found[node.name] = Site(names, node.name, position, node.input[position])
    order = {node.name: index for index, node in enumerate(graph.node)}
    return tuple(sorted(found.values(), key=lambda site: order[site.node]))


def _sums(graph: Any, depth: Mapping[str, int], quantised: set[str]) -> list[tuple[Any, str, int]]:
    """Sums of activations, the convolution among `quantised` that ends in each, and the position of the other input."""
    producers = {output: node for node in graph.node for output in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    found = []
    for node in graph.node:
        if node.op_type != "Add" or any(name not in depth for name in node.input):
            continue
        ends = [
            (depth[name], position)
            for position, name in enumerate(node.input)
            if name in producers and producers[name].op_type == "Conv" and readers[name] == 1
        ]
        if ends and producers[node.input[max(ends)[1]]].name in quantised:
            position = max(ends)[1]  # of two convolutions, the shortcut is the one with fewer steps before it
            found.append((node, producers[node.input[position]].name, 1 - position))
    return found


def _depths(graph: Any) -> dict[str, int]:
    """How many nodes lie on the longest way to each tensor that depends on the input."""
    depth = {graph.input[0].name: 0}
    for node in graph.node:
        before = [depth[name] for name in node.input if name in depth]
        if before:
            depth.update(dict.fromkeys(node.output, max(before) + 1))
    return depth


def _images(graph: Any, depth: Mapping[str, int]) -> set[str]:
    """The input, and what is made of it alone before any layer with a weight."""
    found = {graph.input[0].name}
    for node in graph.node:
        if node.op_type not in WEIGHTED and found.issuperset(name for name in node.input if name in depth):
            found.update(node.output)
    return found


def _pays(node: Any, shapes: Mapping[str, Shape], kind: str, *, first: bool) -> bool:
    """Whether a node multiplies an activation with a weight, and is large enough to gain.

    Fewer than 16 channels in or out do not fill a block of the integer units; a first convolution is worth it all the
    same. Of grouped convolutions, those with a multiple of 8 channels and a kernel of 3 or more have integer kernels;
    in fp8 there are neither these nor kernels of more than 32 positions.
    """
    if node.input[0] in shapes or len(shapes.get(node.input[1], ())) < 2:
        return False
    shape = shapes[node.input[1]]
    if node.op_type != "Conv":
        return len(shape) == 2 and min(shape) >= SMALLEST
    groups = next((each.i for each in node.attribute if each.name == "group"), 1)
    if kind == "fp8":
        return groups == 1 and min(shape[:2]) > SMALLEST and math.prod(shape[2:]) <= LARGEST_KERNEL_IN_FP8
    if groups > 1:
        return shape[0] % 8 == 0 and max(shape[2:]) >= 3
    return min(shape[:2]) >= SMALLEST or first


def _axis(node: Any) -> int:
    """The axis of a weight's output channels."""
    transposed = any(each.name == "transB" and each.i for each in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1
