"""Parameters and MACs, stated honestly.

One multiply-accumulate counts as one MAC (the paper's FLOPs are twice that), per image, for the forward pass.
Convolutions, linear layers, matrix products and attention are counted. Norms, activations, additions, pooling and
moves of data have no MACs by this convention. Any other operator is reported in `unknown`, never counted as zero
in silence.

Three columns: *theoretical* credits every zero weight; *gpu_supported* is the dense arithmetic on the shapes that
remain, which is what a GPU executes; *dense* is the original network.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from chase.slimming.groups import Group
from chase.sparse.masks import Masks, maskable
from chase.tracing import Trace, operator, shape, trace


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates per image."""

    theoretical: int
    gpu_supported: int
    dense: int

    def to_dict(self) -> dict[str, int]:
        """The three columns."""
        return asdict(self)


@dataclass(frozen=True)
class Params:
    """Parameters: other than zero, stored, and stored by the original dense network."""

    nonzero: int
    stored: int
    dense: int

    def to_dict(self) -> dict[str, int]:
        """The three columns."""
        return asdict(self)


@dataclass(frozen=True)
class Layer:
    """One use of a weight: `positions` is how often each of its entries is multiplied per image."""

    weight: str
    shape: tuple[int, ...]
    positions: int

    @property
    def macs(self) -> int:
        """Dense MACs per image."""
        return math.prod(self.shape) * self.positions


@dataclass(frozen=True)
class Cost:
    """What one forward pass costs: layers with weights, products of activations (MACs), uncounted operators."""

    layers: tuple[Layer, ...]
    products: int
    unknown: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Dense MACs per image."""
        return self.products + sum(layer.macs for layer in self.layers)

    def macs_of(self, entries: Mapping[str, int]) -> int:
        """MACs per image if the named weights have only so many entries (others: all)."""
        sizes = (entries.get(layer.weight, math.prod(layer.shape)) * layer.positions for layer in self.layers)
        return self.products + sum(sizes)


@dataclass(frozen=True)
class Counts:
    """The full account of one network."""

    macs: Macs
    params: Params
    cost: Cost

    @property
    def unknown(self) -> tuple[str, ...]:
        """Operators that no handler counts."""
        return self.cost.unknown


def cost(model: nn.Module, example: Tensor) -> Cost:
    """What a forward pass of `model` costs on one input shaped like `example` [b, ...].

    Raises:
        TraceError: if the model cannot be traced.
    """
    return cost_of(trace(model, example))


def cost_of(traced: Trace) -> Cost:
    """What a traced forward pass costs per image."""
    layers: list[Layer] = []
    products, unknown = 0, Counter[str]()
    for node in traced.nodes:
        name = operator(node)
        if name in WEIGHTED and (weight := traced.tensor_name(node.args[1])) is not None:
            layers.append(_layer(node, weight))
        elif name in PRODUCTS:
            products += PRODUCTS[name](node) // 2  # the trace has a batch of 2
        elif name and name.removesuffix("_") not in FREE and not name.startswith("getitem"):
            unknown[name] += 1
    return Cost(tuple(layers), products, tuple(f"{name} ×{times}" for name, times in unknown.items()))


def _layer(node: fx.Node, weight: str) -> Layer:
    """Each entry of a weight meets every position of the result (of the input, where it is transposed)."""
    sides = _shape_of(node.args[1])
    met = _shape_of(node.args[0]) if operator(node) in TRANSPOSED else shape(node)
    return Layer(weight, sides, math.prod(met) // sides[0] // 2)


def _matrix_product(node: fx.Node) -> int:
    """[..., n, k] × [..., k, m]: every entry of the result takes k MACs."""
    return math.prod(shape(node)) * _shape_of(node.args[0])[-1]


def _attention(node: fx.Node) -> int:
    """softmax(q kᵀ) v with q [..., n, d], k [..., m, d], v [..., m, e]: n·m·(d + e) for each head."""
    q, k, v = (_shape_of(node.args[index]) for index in range(3))
    return math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


def _shape_of(node: Any) -> tuple[int, ...]:
    return shape(node) if isinstance(node, fx.Node) else ()


TRANSPOSED = {"aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d"}
WEIGHTED = {"aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.linear"} | TRANSPOSED
PRODUCTS: dict[str, Callable[[fx.Node], int]] = {
    "aten.matmul": _matrix_product,
    "aten.bmm": _matrix_product,
    "aten.scaled_dot_product_attention": _attention,
}
"""Operators whose MACs do not come from a weight; add one with `PRODUCTS["aten.name"] = handler`."""

_FREE_NAMES = """
add sub mul div neg exp sqrt rsqrt pow abs clamp clamp_min minimum maximum mean sum
relu gelu silu mish elu leaky_relu hardtanh relu6 hardswish hardsigmoid sigmoid tanh softplus softmax log_softmax
batch_norm layer_norm group_norm instance_norm dropout feature_dropout linalg_vector_norm
max_pool2d max_pool2d_with_indices avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d upsample_nearest2d
upsample_bilinear2d view reshape flatten unflatten permute t transpose swapaxes squeeze unsqueeze expand expand_as
contiguous clone alias detach lift_fresh_copy to type_as cat stack split split_with_sizes chunk slice select index
unbind roll pad constant_pad_nd copy fill zero new_zeros zeros ones full arange eq ne ge le gt lt where masked_fill
_assert_tensor_metadata
"""
FREE = {f"aten.{name}" for name in _FREE_NAMES.split()}
"""Operators without MACs by the convention above."""


def parameters(model: nn.Module) -> tuple[int, int]:
    """(entries other than zero, entries) of all parameters, shared ones once."""
    tensors = list(model.parameters())
    return sum(int(torch.count_nonzero(t)) for t in tensors), sum(t.numel() for t in tensors)


def count(model: nn.Module, example: Tensor, *, dense: Counts | None = None) -> Counts:
    """The account of a network as it stands; `dense` is that of the original it was cut from (default: itself)."""
    spent = cost(model, example)
    nonzero = {name: int(torch.count_nonzero(weight)) for name, weight in maskable(model).items()}
    alive, stored = parameters(model)
    return Counts(
        Macs(spent.macs_of(nonzero), spent.macs, dense.macs.dense if dense else spent.macs),
        Params(alive, stored, dense.params.dense if dense else stored),
        spent,
    )


def masked_macs(spent: Cost, masks: Masks) -> Macs:
    """The three columns of a masked network, with its dead channels taken as cut out; no tracing."""
    nonzero = {name: int(torch.count_nonzero(mask)) for name, mask in masks.weights.items()}
    sizes = {name: math.prod(sides) for name, sides in masks.shapes().items()}
    return Macs(spent.macs_of(nonzero), spent.macs_of(sizes), spent.macs)


def macs_at_widths(spent: Cost, shapes: Mapping[str, Sequence[int]]) -> int:
    """Dense MACs per image if the named weights had these shapes."""
    return spent.macs_of({name: math.prod(sides) for name, sides in shapes.items()})


def channel_macs(spent: Cost, shapes: Mapping[str, Sequence[int]], group: Group) -> float:
    """MACs per image that one channel of a group executes where weights have these shapes: the row that makes it, and
    the columns that read it."""
    total = 0.0
    for layer in spent.layers:
        sides = shapes[layer.weight]
        for part in group.slices:
            if part.tensor == layer.weight:
                entries = math.prod(sides) / max(1, sides[part.dim]) / (part.block.count if part.block else 1)
                total += layer.positions * entries * len(part.positions) / group.size
    return total
