"""An ONNX graph in int8 or fp8, calibrated on training images, with the fewest layers left out that its gate takes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from chase.errors import ExportError, RecipeError, UnknownName
from chase.exporters.job import Job
from chase.exporters.precision.calibrate import check_calibration, outputs, ranges
from chase.exporters.precision.choose import kept_in_fp32
from chase.exporters.precision.names import matching
from chase.exporters.precision.onnx_layers import onnx_layers
from chase.exporters.precision.qdq import LIMITS, with_pairs
from chase.exporters.precision.sites import sites
from chase.registry import did_you_mean

OPSET_OF_FP8 = 19
_BATCH = 16  # samples in one trial run


class Quantisation:
    """An ONNX model of a float32 network that torch wrote, calibrated once and quantised as often as one likes.

    `kind` is "int8" (the rest stays in float32), "int8-fp16" (the rest in fp16, but float32 goes in and comes out) or
    "fp8" (float8e4m3fn, the rest in float32). `calibration` [n, ...] are inputs made of training images. What is
    quantised, and how, is told by `chase.exporters.precision.sites` and `qdq`; how ranges are found, by `calibrate`.
    `within` is the module that holds the network, where that is not the whole model.

    Raises:
        RecipeError: if there are too few images, or if an argument is not known.
        ExportError: if nothing in the network can be quantised, or ONNX Runtime cannot run it.
    """

    def __init__(
        self, proto: Any, calibration: Tensor | None, kind: str, *, method: str = "minmax", within: str = ""
    ) -> None:
        if kind not in LIMITS:
            raise UnknownName(f"no kind of quantisation named {kind!r}; {did_you_mean(kind, LIMITS)}")
        images = check_calibration(calibration, method)
        _check_opset(proto, kind)
        self.kind, self._proto = kind, proto
        self._layer_of = onnx_layers(proto.graph, within=within)
        self._sites = sites(proto.graph, kind, within=within)
        if not self._sites:
            raise ExportError(f"no layer is large enough for {kind}; choose fp16")
        tensors = [site.tensor for site in self._sites]
        method = "minmax" if kind == "fp8" and method == "mse" else method  # the error of fp8 is relative: none to gain
        self._ranges = ranges(proto, tensors, images, method=method, limit=LIMITS[kind])

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the network, in its order."""
        return tuple(dict.fromkeys(self._layer_of.values()))

    @property
    def quantised(self) -> tuple[str, ...]:
        """The layers that the kind of quantisation changes, if they are not kept."""
        changed = {site.layers[0] for site in self._sites}
        return tuple(layer for layer in self.layers if self.kind == "int8-fp16" or layer in changed)

    def model(self, keep_fp32: Collection[str] = ()) -> Any:
        """The quantised ONNX model, in which the layers of `keep_fp32` are in float32."""
        chosen = [site for site in self._sites if not set(site.layers) & set(keep_fp32)]
        model = with_pairs(self._proto, chosen, self._ranges, self.kind)
        if self.kind != "int8-fp16":
            return model
        return _in_fp16(model, [node.name for node in model.graph.node if self._layer(node) in keep_fp32])

    def answers(self, samples: Tensor, keep_fp32: Collection[str] = ()) -> Tensor:
        """What the quantised model answers [n, classes] to samples [n, ...] in ONNX Runtime on the CPU."""
        model = self.model(keep_fp32)
        names = [model.graph.output[0].name]
        return torch.cat([found for (found,) in outputs(model, samples, names, batch=_BATCH, literal=True)])

    def _layer(self, node: Any) -> str:
        return self._layer_of.get(node.output[0], "")


def quantized_within(proto: Any, job: Job, expected: Tensor, *, method: str = "minmax") -> tuple[Any, tuple[str, ...]]:
    """The ONNX model of a job in its precision, and the layers that stay in float32.

    These are the layers that the job names, and the fewest others with which the model's answers in ONNX Runtime meet
    the job's gate; `expected` [n, classes] are the network's own to the job's samples.

    Raises:
        RecipeError: if a pattern matches no layer, or for what `Quantisation` says.
        ExportError: for what `Quantisation` says.
        ParityError: if the gate is missed even with every layer in float32.
    """
    within = "network" if job.facts.get("preprocessing") else ""
    quantisation = Quantisation(proto, job.calibration, job.precision, method=method, within=within)
    chosen = matching(job.keep_fp32, quantisation.layers)
    kept = kept_in_fp32(
        quantisation.quantised,
        lambda kept: quantisation.answers(job.samples, kept),
        expected,
        chosen=chosen,
        gate=job.gate,
        progress=job.progress,
    )
    return quantisation.model(kept), tuple(layer for layer in quantisation.layers if layer in kept)


def _check_opset(proto: Any, kind: str) -> None:
    opset = next(int(entry.version) for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if kind == "fp8" and opset < OPSET_OF_FP8:
        raise RecipeError(f"opset {opset} has no fp8; choose {OPSET_OF_FP8} or more")


def _in_fp16(model: Any, keep: list[str]) -> Any:
    """The model with all but the nodes of `keep` in fp16, with float32 inputs and outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(model, keep_io_types=True, node_block_list=keep)
    nodes = _in_order(list(model.graph.node))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _in_order(nodes: list[Any]) -> list[Any]:
    """Nodes each behind those that it reads from; only few, such as casts that were added, stand elsewhere before."""
    producers = {output: node for node in nodes for output in node.output}
    placed: dict[str, Any] = {}

    def place(node: Any) -> None:
        if node.output[0] not in placed:
            for name in node.input:
                if name in producers:
                    place(producers[name])
            placed[node.output[0]] = node

    for node in nodes:
        place(node)
    return list(placed.values())
