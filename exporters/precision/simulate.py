"""What a network would answer in fp16 or bf16, without building it: one float32 forward pass that rounds on the way."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from chase.exporters.precision.operators import Kind, is_float, kind, packet, rounded_scalars
from chase.exporters.precision.plan import in_full

_CHUNK = 16  # samples in one forward pass


class Simulation:
    """A flat graph (`chase.exporters.precision.graph.flat`) as it would answer with some of its layers in `dtype`.

    Every result of a layer in `dtype` is rounded to it, as are the numbers, weights and float32 tensors that such a
    layer reads; sums inside an operation run in float32, as they do on GPUs. What leaves the range of `dtype` is
    infinite from there on. Attention is taken apart, as it is in ONNX.
    """

    def __init__(self, module: fx.GraphModule, dtype: torch.dtype) -> None:
        self.module, self.dtype = module, dtype
        self._weights: dict[fx.Node, Tensor] = {}  # rounded once

    @torch.inference_mode()
    def answers(self, samples: Tensor, keep_fp32: Collection[str] = ()) -> Tensor:
        """The logits [n, classes] for samples [n, ...] with the layers of `keep_fp32` in float32."""
        full = in_full(self.module.graph, keep_fp32)
        return torch.cat([_Rounding(self, full).run(chunk) for chunk in samples.split(_CHUNK)])

    def rounded(self, value: Tensor, node: fx.Node) -> Tensor:
        """The value of a node as `dtype` holds it."""
        if value.dtype != torch.float32:
            return value
        if node.op != "get_attr":
            return value.to(self.dtype).float()
        if node not in self._weights:
            self._weights[node] = value.to(self.dtype).float()
        return self._weights[node]


class _Rounding(fx.Interpreter):
    def __init__(self, simulation: Simulation, full: dict[fx.Node, bool]) -> None:
        super().__init__(simulation.module)
        self._simulation, self._full = simulation, full

    def run_node(self, n: fx.Node) -> Any:
        if self._full[n] or n.op != "call_function":
            return super().run_node(n)

        def given(source: fx.Node) -> Any:
            value = self.env[source]
            exact = not self._full[source] and source.op == "call_function"
            return value if exact or not is_float(source) else self._simulation.rounded(value, source)

        args, kwargs = fx.node.map_arg(rounded_scalars(n, self._simulation.dtype), given)
        if packet(n) == "scaled_dot_product_attention" and len(args) < 5 and not kwargs.get("enable_gqa"):
            return _attention(*args, dtype=self._simulation.dtype, scale=kwargs.get("scale"))
        result = n.target(*args, **kwargs)  # type: ignore[operator]
        if kind(n) is Kind.FOLLOWS and any(is_float(source) for source in n.all_input_nodes):
            return result
        return pytree.tree_map_only(Tensor, lambda each: self._simulation.rounded(each, n), result)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    dtype: torch.dtype,
    scale: float | None,
) -> Tensor:
    """Attention in steps that are rounded one by one; query and key take one half of the scale each."""

    def rounded(x: Tensor) -> Tensor:
        return x.to(dtype).float()

    root = math.sqrt(query.shape[-1] ** -0.5 if scale is None else scale)
    scores = rounded(rounded(query * root) @ rounded(key * root).transpose(-2, -1))
    if mask is not None and mask.dtype == torch.bool:
        weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
        weights = weights.where(mask.any(-1, keepdim=True), 0)  # who may look at nothing sees nothing
    else:
        weights = (scores if mask is None else rounded(scores + mask)).softmax(-1)
    return rounded(rounded(weights) @ value)
