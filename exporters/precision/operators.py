"""What an operation of a torch.fx graph does to the precision of numbers: compute, hand on, or need float32."""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import Enum
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

# fmt: off
EXACT = frozenset(
    {
        "_to_copy", "_unsafe_view", "adaptive_max_pool1d", "adaptive_max_pool2d", "alias", "amax", "amin",
        "arange", "cat", "channel_shuffle", "chunk", "clamp", "clamp_max", "clamp_min", "clone", "constant_pad_nd",
        "contiguous", "detach", "diagonal", "embedding", "expand", "expand_as", "fill", "flatten", "flip", "full",
        "full_like", "gather", "hardtanh", "index", "index_select", "lift_fresh_copy", "masked_fill", "max",
        "max_pool1d", "max_pool2d", "max_pool2d_with_indices", "max_pool3d", "maximum", "min", "minimum",
        "movedim", "narrow", "neg", "new_full", "new_ones", "new_zeros", "ones", "ones_like", "pad", "permute",
        "pixel_shuffle", "pixel_unshuffle", "reflection_pad2d", "relu", "relu6", "repeat", "replication_pad2d",
        "reshape", "roll", "scalar_tensor", "select", "select_scatter", "slice", "slice_scatter", "split",
        "split_with_sizes", "squeeze", "stack", "t", "tile", "topk", "transpose", "tril", "triu", "unbind",
        "unflatten", "unfold", "unsqueeze", "upsample_nearest2d", "view", "where", "zeros", "zeros_like",
    }
)
"""Operations (aten) whose results are among their inputs: they round nothing and work in the inputs' precision."""
# fmt: on
WEIGHTED = frozenset(
    {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear"}
)
"""Operations that multiply with a weight, their second argument, and have a bias as the third."""

_NUMBERS = ("number", "Optional[number]", "Tensor")  # the types in a schema that a number in the graph can have


class Kind(Enum):
    """What an operation does to the precision of float32 numbers."""

    COMPUTES = "rounds its result"
    FOLLOWS = "hands numbers on as they are"
    OPAQUE = "needs float32: it is no plain operation, or one on other types"


def packet(node: fx.Node) -> str:
    """The name of an operation without overload and leading underscores; "" for what is none of aten's."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return ""
    return str(node.target.overloadpacket.__name__)


def kind(node: fx.Node) -> Kind:
    """What a node of a functional graph does; its tensors' types are those of `node.meta["val"]`."""
    if node.op != "call_function":
        return Kind.OPAQUE if node.op == "output" else Kind.FOLLOWS
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return Kind.OPAQUE
    before = {each for source in node.all_input_nodes for each in _types(source)}
    after = set(_types(node))
    if any(each != torch.float32 for each in before | after if each.is_floating_point or each.is_complex):
        return Kind.OPAQUE
    if not packet(node) or packet(node) in EXACT or torch.float32 not in after:
        return Kind.FOLLOWS
    if torch.float32 in before:
        return Kind.COMPUTES
    return Kind.FOLLOWS if torch.float32 in pytree.tree_leaves((node.args, node.kwargs)) else Kind.OPAQUE


def is_float(node: fx.Node) -> bool:
    """Whether a node stands for one float32 tensor."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype == torch.float32


def rounded_scalars(node: fx.Node, dtype: torch.dtype) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of an operation with its plain numbers as `dtype` holds them; finite ones stay finite.

    A graph format stores a number beside a tensor in the tensor's type; torch would compute with it in float32.
    Settings such as the epsilon of a norm are no such numbers.
    """
    if not packet(node) or packet(node) == "arange":
        return tuple(node.args), dict(node.kwargs)
    schema = {each.name: str(each.type) for each in node.target._schema.arguments}  # type: ignore[union-attr]
    types = list(schema.values())
    args = tuple(_rounded(each, dtype, type_) for each, type_ in zip(node.args, types, strict=False))
    return args, {name: _rounded(each, dtype, schema[name]) for name, each in node.kwargs.items()}


def _rounded(value: Any, dtype: torch.dtype, type_: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or type_ not in _NUMBERS:
        return value
    if not math.isfinite(value):
        return value
    limit = torch.finfo(dtype).max
    nearest = float(torch.tensor(min(max(value, -limit), limit), dtype=torch.float64).to(dtype))
    return value if nearest == value else nearest


def _types(node: fx.Node) -> Iterator[torch.dtype]:
    return (each.dtype for each in pytree.tree_leaves(node.meta.get("val")) if isinstance(each, Tensor))
