"""The range of every activation that is quantised, measured on training images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from chase.errors import ExportError, RecipeError, UnknownName, reason
from chase.packages import require
from chase.registry import did_you_mean

METHODS = ("minmax", "percentile", "mse")
"""How the range of an activation is found; see `ranges`."""
FEWEST = 8
"""The fewest calibration images that are accepted; a few hundred are usual."""
PERCENTILE = 99.99

_BINS = 2048
_BATCH = 4  # images whose activations are in memory at one time


def ranges(proto: Any, tensors: Collection[str], images: Tensor, *, method: str, limit: float) -> dict[str, float]:
    """The magnitude of each tensor of an ONNX model beyond which it is clipped, from `images` [n, ...].

    "minmax" clips nothing that the images show; "percentile" clips the largest 0.01 % of values; "mse" clips where the
    squared error of clipping and of rounding to `limit` levels on each side is least.
    """
    names = list(dict.fromkeys(tensors))
    largest = dict.fromkeys(names, 0.0)
    for name, value in _activations(proto, names, images):
        largest[name] = max(largest[name], float(value.abs().max()))
    if method == "minmax":
        return largest
    counts = {name: torch.zeros(_BINS) for name in names}
    for name, value in _activations(proto, names, images):
        if largest[name]:
            counts[name] += torch.histc(value.abs().flatten(), _BINS, 0, largest[name])
    clip: Callable[[Tensor], float] = _percentile if method == "percentile" else lambda each: _least_error(each, limit)
    return {name: largest[name] * clip(counts[name]) for name in names}


def check_method(method: str) -> None:
    """Refuse a calibration method that is not there.

    Raises:
        UnknownName: with a hint.
    """
    if method not in METHODS:
        raise UnknownName(f"no calibration method named {method!r}; {did_you_mean(method, METHODS)}")


def check_calibration(images: Tensor | None, method: str) -> Tensor:
    """The calibration images.

    Raises:
        RecipeError: if there are none or too few, or if there is no such method.
    """
    check_method(method)
    count = 0 if images is None else len(images)
    if images is None or count < FEWEST:
        raise RecipeError(f"{count} calibration images are too few; give {FEWEST} or more images of the training set")
    return images


def outputs(
    proto: Any, inputs: Tensor, names: Sequence[str], *, batch: int, literal: bool = False
) -> Iterator[list[Tensor]]:
    """The tensors `names` of an ONNX model for `inputs` [n, ...], batch by batch, from ONNX Runtime on the CPU.

    With `literal` the graph is run as it is written: the optimiser of onnxruntime 1.31 makes wrong answers of quantised
    graphs, or refuses them, and loses values that are asked for in the middle of a graph (a slimmed ResNet-50).

    Raises:
        ExportError: if ONNX Runtime cannot run the model.
    """
    runtime = require("onnxruntime", purpose="quantising", install="onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    if literal:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = runtime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
        for chunk in inputs.split(batch):
            found = session.run(list(names), {session.get_inputs()[0].name: chunk.contiguous().numpy()})
            yield [torch.from_numpy(each) for each in found]
    except Exception as error:  # each of onnxruntime's errors derives from Exception alone
        raise ExportError(f"ONNX Runtime cannot run the graph to be quantised: {reason(error)}") from error


def _activations(proto: Any, names: Sequence[str], images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Each named tensor of the model for each batch of images."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    given = {each.name for each in (*copy.graph.input, *copy.graph.output)}
    for name in names:
        if name not in given:
            copy.graph.output.add(name=name)
    image = copy.graph.input[0].name
    inner = [name for name in names if name != image]
    if image in names:
        yield image, images
    if inner:
        for values in outputs(copy, images, inner, batch=_BATCH, literal=True):
            yield from zip(inner, values, strict=True)


def _percentile(counts: Tensor) -> float:
    """The part of the range that holds PERCENTILE percent of the values."""
    below = counts.double().cumsum(0) / counts.sum()
    return (int(torch.searchsorted(below, PERCENTILE / 100)) + 1) / len(counts)


def _least_error(counts: Tensor, limit: float) -> float:
    """The part of the range with the least squared error of clipping to it and rounding to `limit` levels in it."""
    values = (torch.arange(len(counts)) + 0.5) / len(counts)
    clips = torch.linspace(0.05, 1, 96)[:, None]
    error = torch.where(values < clips, (clips / limit) ** 2 / 12, (values - clips) ** 2)
    return float(clips[(error * counts).sum(1).argmin()])
