"""What each operator does to units: one rule an operator, in one table.

A rule takes the propagation and a node of the traced graph and returns the labels of its result (None: no units); see
`chase.slimming.operators.rule`. An operator without a rule holds every unit that reaches it, so nothing is ever
guessed. Add a rule for an operator with `RULES["my_library.my_operator"] = rule`.
"""

from __future__ import annotations

from torch import fx

from chase.slimming.operators import contraction, elementwise, movement, reduction
from chase.slimming.operators.rule import Flow, Result, Rule, unknown
from chase.slimming.units import Labels

__all__ = ["RULES", "Flow", "Result", "Rule", "item", "unknown"]


def item(flow: Flow, node: fx.Node) -> Labels | None:
    """One of the results of an operator that returns several."""
    values, index = flow.several(node.args[0]), int(str(node.args[1]))
    return values[index] if index < len(values) else None  # of an operator without a rule nothing is known


def checks(flow: Flow, node: fx.Node) -> None:
    """An assertion that `torch.export` writes beside a conversion; it does nothing to units."""


TABLE: list[tuple[Rule, str]] = [
    (elementwise.unary, """
        relu relu6 gelu silu hardswish mish elu selu celu leaky_relu tanh hardtanh hardsigmoid sigmoid softplus
        softsign threshold hardshrink softshrink tanhshrink log_sigmoid exp expm1 log log1p sin cos atan erf sqrt
        rsqrt square abs neg sign reciprocal round floor ceil pow clamp clamp_min clamp_max rsub nan_to_num"""),
    (elementwise.same, "contiguous clone alias detach lift_fresh_copy to _to_copy type_as float half double"),
    (elementwise.like, "zeros_like ones_like empty_like rand_like randn_like full_like"),
    (elementwise.made, "new_empty new_zeros new_ones new_full"),
    (elementwise.at_random, "dropout feature_dropout"),
    (elementwise.binary, "add sub mul div maximum minimum"),
    (elementwise.prelu, "prelu"),
    (elementwise.addcmul, "addcmul"),
    (elementwise.where, "where"),
    (movement.moves, """
        view reshape _unsafe_view flatten unflatten permute transpose t swapaxes movedim moveaxis squeeze unsqueeze
        expand expand_as view_as reshape_as repeat tile flip select pixel_unshuffle numpy_T mT diagonal"""),
    (movement.slices, "slice"),
    (movement.chunks, "chunk"),
    (movement.splits, "split split_with_sizes tensor_split"),
    (movement.unbinds, "unbind"),
    (movement.rolls, "roll"),
    (movement.pixel_shuffle, "pixel_shuffle"),
    (movement.concat, "cat concat concatenate"),
    (movement.stack, "stack"),
    (movement.pads, "pad constant_pad_nd"),
    (reduction.pools, """
        max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
        adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d"""),
    (reduction.resizes, """
        upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d
        upsample_bicubic2d upsample_trilinear3d upsample_nearest_exact2d
        _upsample_bilinear2d_aa _upsample_bicubic2d_aa"""),
    (reduction.reduces, "mean sum amax amin var std linalg_vector_norm"),
    (reduction.softmax, "softmax log_softmax"),
    (reduction.batch_norm, "batch_norm"),
    (reduction.instance_norm, "instance_norm"),
    (reduction.group_norm, "group_norm"),
    (reduction.layer_norm, "layer_norm rms_norm"),
    (reduction.attention, "scaled_dot_product_attention"),
    (contraction.linear, "linear"),
    (contraction.convolution, "conv1d conv2d conv3d"),
    (contraction.transposed, "conv_transpose1d conv_transpose2d conv_transpose3d"),
    (contraction.matmul, "matmul mm bmm"),
    (contraction.addmm, "addmm"),
    (contraction.embedding, "embedding"),
]  # fmt: skip

RULES: dict[str, Rule] = {
    **{f"aten.{name}{suffix}": rule for rule, names in TABLE for name in names.split() for suffix in ("", "_")},
    "aten._assert_tensor_metadata": checks,
    "getitem": item,
}
