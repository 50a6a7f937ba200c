"""Exporters: a network becomes a file that other programs run, and the file is checked before it is kept.

artifact = export(model, "model.onnx", example=x[:1])
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chase import __version__
from chase.artifact import Artifact
from chase.errors import ExportError, MissingDependency, RecipeError, reason
from chase.exporters.child import answers
from chase.exporters.formats import EXPORTERS, PRECISIONS, Exporter, check, default_name, format_of
from chase.exporters.job import Job, Progress, silent, where
from chase.exporters.parity import Gate, Parity, gate_for
from chase.exporters.preprocessing import Preprocessed
from chase.exporters.verification import check as check_parity
from chase.exporters.verification import compare_modules, samples_like, verify
from chase.files import staged
from chase.packages import installed
from chase.registry import did_you_mean

__all__ = [
    "EXPORTERS",
    "PRECISIONS",
    "Exporter",
    "Gate",
    "Job",
    "Parity",
    "answers",
    "default_name",
    "export",
    "format_of",
    "verify",
]

PACKAGES = ("torch", "onnx", "onnxscript", "onnxslim", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx")
"""Those that take part in an export, beside what a format adds itself."""

_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


def export(
    model: nn.Module,
    path: Path | str,
    *,
    example: Tensor,
    format: str | None = None,
    precision: str = "fp32",
    keep_fp32: Sequence[str] = (),
    preprocessing: bool = False,
    samples: Tensor | None = None,
    calibration: Tensor | None = None,
    gate: Gate | None = None,
    facts: Mapping[str, Any] | None = None,
    isolated: bool = True,
    on_progress: Progress = silent,
    **settings: Any,
) -> Artifact:
    """The artifact at `path`, written beside its sidecar once it was seen to answer as the model does.

    `example` is an input [b, c, h, w]. The file is run on `samples` [n, c, h, w] (by default random ones from a fixed
    seed) at two batch sizes, in a fresh process if `isolated`, and held to `gate` (by default what
    `chase.exporters.parity` says for the format and the precision). int8 and fp8 need `calibration` [m, c, h, w]:
    images of the training set. A reduced precision that misses its gate keeps the fewest layers in fp32 that meet it,
    beside those that `keep_fp32` names (patterns such as "layer4.*"); the artifact names them. With `preprocessing`
    the file takes uint8 images [b, h, w, c] and answers with probabilities; it needs mean and std among the facts.
    `facts` are fields of Artifact that the caller knows, such as classes, mean and std; `settings` are the format's
    own, such as opset. The model stays as it is.

    A file that cannot run on this machine, such as an engine for another GPU, is kept if the graph that it was built
    from passes; the artifact's parity then says what was run ("of") and why ("because").

    Raises:
        RecipeError: if an argument is wrong; UnknownName if there is no such format.
        ExportError: if the model cannot be traced or written in this format.
        ParityError: if the file does not answer as the model does; what stood at `path` before stays.
        MissingDependency: if the exporter is not installed.
    """
    path = Path(path)
    format = format or format_of(path)
    exporter = check(format, precision, settings)
    model, example = _prepare(model, example)
    known = _facts(facts or {}, example)
    if preprocessing:
        known |= {"preprocessing": True, "input_dtype": "uint8", "output_name": "probabilities"}
    blank = Artifact(path=path, format=format, precision=precision, **known)
    images = _like(samples_like(example) if samples is None else samples, example)
    reference = _wrapped(model, blank)
    inputs = blank.encode(images)
    gate = gate or gate_for(reference, inputs, format=format, precision=precision)
    reduced, kept = _reduced(model, example, precision, samples=images, gate=gate, keep_fp32=keep_fp32)
    job = Job(
        model=_wrapped(reduced, blank),
        example=inputs[:1],
        samples=inputs,
        gate=gate,
        precision=precision,
        calibration=None if calibration is None else blank.encode(_like(calibration, example)),
        keep_fp32=tuple(keep_fp32),
        facts=known,
        progress=on_progress,
    )
    with staged(path) as temporary:
        written = exporter.write(job, temporary, **settings)
        known |= {"keep_fp32": kept, "settings": settings} | written
        artifact = Artifact(path=temporary, format=format, precision=precision, **known)
        artifact = dataclasses.replace(artifact, sha256=artifact.fingerprint())
        artifact.save()
        parity = _verified(reference, artifact, job, isolated)
        artifact = dataclasses.replace(artifact, parity=parity)
        artifact.save()
    return dataclasses.replace(artifact, path=path)


def _wrapped(model: nn.Module, artifact: Artifact) -> nn.Module:
    """The model with its preprocessing, where the artifact has it inside."""
    if not artifact.preprocessing:
        return model
    if not artifact.mean or len(artifact.mean) != artifact.input_shape[0]:
        raise RecipeError(
            f"preprocessing needs a mean and a std for each of {artifact.input_shape[0]} channels, not "
            f"{list(artifact.mean)}; pass them as facts"
        )
    return Preprocessed(model, artifact.mean, artifact.std).eval()


def _reduced(
    model: nn.Module, example: Tensor, precision: str, *, samples: Tensor, gate: Gate, keep_fp32: Sequence[str]
) -> tuple[nn.Module, tuple[str, ...]]:
    """The model computing in `precision` inside, and the layers that do not; the model itself where that is fp32."""
    if precision not in _HALF:
        if keep_fp32 and precision == "fp32":
            raise RecipeError(f"keep_fp32 is for reduced precisions, not {precision}; leave it out")
        return model, ()
    from chase.exporters.precision import in_half

    return in_half(model, example, _HALF[precision], samples=samples, gate=gate, keep_fp32=keep_fp32)


def _verified(reference: nn.Module, artifact: Artifact, job: Job, isolated: bool) -> dict[str, Any]:
    """The parity of the file, or that of its graph where the file cannot run here, as the sidecar states it."""
    because = None
    try:
        device = _device(artifact)
        parity = check_parity(reference, artifact, job.samples, gate=job.gate, device=device, isolated=isolated)
    except MissingDependency as missing:
        if artifact.format == "onnx" and artifact.precision != "bf16" or not EXPORTERS[artifact.format].through_onnx:
            raise
        because = str(missing)
        parity = _stand_in(reference, artifact, job, isolated)
    gate = {name: bound for name, bound in dataclasses.asdict(job.gate).items() if bound is not None}
    of = "file" if because is None else "module" if job.precision == "bf16" else "graph"
    return dataclasses.asdict(parity) | {"gate": gate, "of": of, "because": because}


def _stand_in(reference: nn.Module, artifact: Artifact, job: Job, isolated: bool) -> Parity:
    """The parity of what the file was made from: its ONNX graph, or for bf16 (nothing runs that on CPUs) torch's."""
    if job.precision == "bf16":
        return compare_modules(reference, job.model, job.samples, gate=job.gate, name=artifact.path.name)
    from chase.exporters.onnx import onnx_bytes

    with tempfile.TemporaryDirectory() as folder:
        graph = dataclasses.replace(artifact, path=Path(folder) / "graph.onnx", format="onnx", files=(), built_for={})
        graph.path.write_bytes(onnx_bytes(job, opset=artifact.opset))
        graph.save()
        return check_parity(reference, graph, job.samples, gate=job.gate, isolated=isolated)


def _device(artifact: Artifact) -> str:
    """Where a file is tried."""
    wants_gpu = artifact.precision == "bf16" and artifact.format == "onnx" and torch.cuda.is_available()
    return "cuda" if wants_gpu else artifact.built_for.get("device", "cpu")


def _prepare(model: nn.Module, example: Tensor) -> tuple[nn.Module, Tensor]:
    """A copy of the model and of the example that answers, in eval mode, on the CPU, in fp32."""
    example = example.detach().float().cpu()
    try:
        model = copy.deepcopy(model).cpu().eval()
        with torch.inference_mode():
            logits = model(example)
    except Exception as error:  # the model's own code may raise anything
        given = f"the example {list(example.shape)}"
        raise ExportError(f"{type(model).__name__} cannot run {given}: {reason(error)}{where(error)}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        answer = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ExportError(f"{type(model).__name__} answers with {answer}; it must be one tensor [b, classes]")
    return model, example[:1]


def _like(given: Tensor, example: Tensor) -> Tensor:
    """The images [n, c, h, w], which must be of the example's shape."""
    if given.shape[1:] != example.shape[1:] or not len(given):
        shapes = f"samples of {list(given.shape)} and an example of {list(example.shape)}"
        raise RecipeError(f"{shapes} do not fit; pass at least one sample of the example's shape")
    return given.detach().float().cpu()


def _facts(facts: Mapping[str, Any], example: Tensor) -> dict[str, Any]:
    """The fields of the artifact that are known before it is written."""
    known = {"classes", "mean", "std", "input_range", "kind", "parent_sha256", "widths_sha256", "macs", "params"}
    for name in facts.keys() - known:
        raise RecipeError(f"an artifact has no fact {name!r} to be given; {did_you_mean(name, known)}")
    return {"input_shape": tuple(example.shape[1:]), "versions": {"chase": __version__, **installed(PACKAGES)}, **facts}
