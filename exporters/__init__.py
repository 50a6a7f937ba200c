"""Exporters: a network becomes a file that other programs run, and the file is checked before it is kept.

artifact = export(model, "model.onnx", example=x[:1])
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chase import __version__
from chase.artifact import Artifact
from chase.errors import ExportError, RecipeError
from chase.exporters.onnx import write_onnx
from chase.exporters.parity import check_parity, tolerance_for
from chase.exporters.tensorrt import write_tensorrt
from chase.exporters.torchscript import write_torchscript
from chase.files import atomic
from chase.registry import Registry, did_you_mean
from chase.runtimes import open_runtime
from chase.runtimes.base import reason

__all__ = ["EXPORTERS", "SUFFIXES", "Exporter", "export", "suffix_of"]


# (model, path, *, example, facts, **options) -> more facts: writes the model, a copy in eval mode on the CPU,
# to `path`. Facts are fields of Artifact: those that are known already, and those that the writing decides.
Exporter = Callable[..., dict[str, Any]]

EXPORTERS: Registry[Exporter] = Registry(
    "exporter", {"torchscript": write_torchscript, "onnx": write_onnx, "tensorrt": write_tensorrt}
)
SUFFIXES = {".ts": "torchscript", ".onnx": "onnx", ".engine": "tensorrt"}

_RANDOM_SAMPLES = 8


def export(
    model: nn.Module,
    path: Path | str,
    *,
    example: Tensor,
    format: str | None = None,
    precision: str = "fp32",
    samples: Tensor | None = None,
    tolerance: float | None = None,
    facts: Mapping[str, Any] | None = None,
    **options: Any,
) -> Artifact:
    """The artifact at `path`, written beside its sidecar once it was seen to answer as the model does.

    `example` is an input [b, c, h, w]. The file is run on `samples` [n, c, h, w] (by default random ones from
    a fixed seed) at two batch sizes; its logits may differ by `tolerance`, relative to the largest one (by
    default what `chase.exporters.parity` says for the format). `facts` are fields of Artifact that the caller
    knows, such as classes, mean and std; `options` are the exporter's own, such as opset. The model stays as
    it is.

    Raises:
        RecipeError: if an argument is wrong; UnknownName if there is no such format.
        ExportError: if the model cannot be traced or written in this format.
        ParityError: if the file does not answer as the model does; what stood at `path` before stays.
        MissingDependency: if the exporter or the runtime that checks it is not installed.
    """
    path = Path(path)
    format = format or _format_of(path)
    exporter = EXPORTERS[format]
    _check_options(exporter, format, options)
    if precision != "fp32":
        raise RecipeError(f"precision {precision!r} is not supported; only fp32 in this version")
    model, example = _prepare(model, example)
    samples = _samples(samples, example)
    known = _facts(facts or {}, example)
    with atomic(path) as temporary:
        known |= exporter(model, temporary, example=example, facts=known, **options)
        written = Artifact(path=temporary, format=format, precision=precision, **known)
        if tolerance is None:
            tolerance = tolerance_for(model, samples, format=format, precision=precision)
        with open_runtime(written) as runtime:
            parity = check_parity(model, runtime, samples, tolerance=tolerance, name=path.name)
    artifact = dataclasses.replace(written, path=path, parity=dataclasses.asdict(parity))
    artifact.save()
    return artifact


def suffix_of(format: str) -> str:
    """The file suffix of a format, such as ".onnx"; that of an exporter added from outside is its name."""
    return next((suffix for suffix, name in SUFFIXES.items() if name == format), f".{format}")


def _format_of(path: Path) -> str:
    if path.suffix in SUFFIXES:
        return SUFFIXES[path.suffix]
    known = ", ".join(f"{suffix} ({format})" for suffix, format in SUFFIXES.items())
    raise RecipeError(f"{path.name} does not say its format; name one or use a known suffix: {known}")


def _check_options(exporter: Exporter, format: str, options: Mapping[str, Any]) -> None:
    """Refuse an option that the exporter does not have."""
    parameters = inspect.signature(exporter).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = set(parameters) - {"model", "path", "example", "facts"}
    for name in options.keys() - known:
        hint = did_you_mean(name, known) if known else "it has none"
        raise RecipeError(f"the exporter {format} has no option {name!r}; {hint}")


def _prepare(model: nn.Module, example: Tensor) -> tuple[nn.Module, Tensor]:
    """A copy of the model and of the example that answers, in eval mode, on the CPU, in fp32."""
    example = example.detach().float().cpu()
    try:
        model = copy.deepcopy(model).cpu().eval()
        with torch.inference_mode():
            logits = model(example)
    except Exception as error:  # the model's own code may raise anything
        given = f"the example {list(example.shape)}"
        raise ExportError(f"{type(model).__name__} cannot run {given}: {reason(error)}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        answer = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ExportError(f"{type(model).__name__} answers with {answer}; it must be one tensor [b, classes]")
    return model, example


def _samples(given: Tensor | None, example: Tensor) -> Tensor:
    """The inputs [n, c, h, w] of the parity check: the given ones, or random ones."""
    if given is None:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(_RANDOM_SAMPLES, *example.shape[1:], generator=generator)
    if given.shape[1:] != example.shape[1:] or not len(given):
        shapes = f"samples of {list(given.shape)} and an example of {list(example.shape)}"
        raise RecipeError(f"{shapes} do not fit; pass at least one sample of the example's shape")
    return given.detach().float().cpu()


def _facts(facts: Mapping[str, Any], example: Tensor) -> dict[str, Any]:
    """The fields of the artifact that are known before it is written."""
    own = {"path", "format", "precision", "parity", "opset", "input_shape"}
    known = {field.name for field in dataclasses.fields(Artifact)} - own
    for name in facts.keys() - known:
        raise RecipeError(f"an artifact has no fact {name!r} to be given; {did_you_mean(name, known)}")
    return {"input_shape": tuple(example.shape[1:]), "versions": _versions(), **facts}


def _versions() -> dict[str, str]:
    """The versions of everything that takes part in an export."""
    found = {"chase": __version__}
    for package in ("torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
