"""Triton export: a model repository that Triton Inference Server serves as it is, around a file of another format."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from chase.errors import RecipeError, UnknownName
from chase.exporters.job import Job
from chase.recipe import coerce
from chase.registry import did_you_mean


@dataclass(frozen=True)
class Backend:
    """What a backend of Triton serves: files of a `format`, called `file`, on one of `kinds` of processors.

    `input` and `output` are what it calls them; None is as in the file. `gathers` says whether it takes several
    requests as one batch.
    """

    format: str
    file: str
    kinds: tuple[str, ...] = ("auto", "cpu", "gpu")
    input: str | None = None
    output: str | None = None
    gathers: bool = True


BACKENDS = {
    "onnxruntime": Backend("onnx", "model.onnx"),
    "tensorrt": Backend("tensorrt", "model.plan", kinds=("gpu",)),
    "pytorch": Backend("torchscript", "model.pt", input="INPUT__0", output="OUTPUT__0"),
    # it pads what it gathers to the largest batch, and fails where several requests fill one
    "openvino": Backend("openvino", "model.xml", kinds=("cpu",), gathers=False),
}
PRECISION_MODES = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8", "int8-fp16": "INT8"}
"""What TensorRT inside ONNX Runtime is allowed to compute in."""
USUAL_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a model is served: the settings of `write_triton`.

    Raises:
        RecipeError: if a value makes no sense, or not with the others.
    """

    backend: str = "onnxruntime"
    name: str = "model"
    max_batch_size: int | None = None
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 100
    instances: int = 1
    kind: str | None = None
    accelerator: str | None = None
    version: int = 1
    versions_kept: int = 1
    warmup: bool = True
    inner: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise UnknownName(f"no backend named {self.backend!r}; {did_you_mean(self.backend, BACKENDS)}")
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name):
            raise RecipeError(f"the name {self.name!r} cannot be a model's folder; use letters, digits, _, - and .")
        for key, least in (("max_queue_delay_us", 0), ("instances", 1), ("version", 1), ("versions_kept", 1)):
            if getattr(self, key) < least:
                raise RecipeError(f"{key} is {getattr(self, key)}; it must be {least} or more")
        self._check_batches()
        if self.kind is not None and self.kind not in self.place.kinds:
            raise RecipeError(f"{self.backend} does not run on {self.kind!r}; choose {' or '.join(self.place.kinds)}")
        if self.accelerator is not None and (self.backend, self.accelerator) != ("onnxruntime", "tensorrt"):
            raise RecipeError(f"{self.backend} has no accelerator {self.accelerator!r}; onnxruntime has tensorrt")

    def _check_batches(self) -> None:
        sizes = list(self.preferred_batch_sizes)
        if not self.place.gathers and (sizes or self.max_batch_size):
            raise RecipeError(
                f"Triton's {self.backend} backend cannot gather requests into batches; leave out max_batch_size and "
                "preferred_batch_sizes, and send batches"
            )
        if self.place.gathers and self.largest < 1:
            raise RecipeError(f"max_batch_size is {self.max_batch_size}; it must be 1 or more")
        if sizes != sorted(set(sizes)) or any(not 1 <= size <= self.largest for size in sizes):
            raise RecipeError(f"preferred_batch_sizes {sizes} must rise and lie within 1 to {self.largest}")

    @property
    def place(self) -> Backend:
        """What the backend takes."""
        return BACKENDS[self.backend]

    @property
    def largest(self) -> int:
        """The largest batch that requests are gathered into; 0 if they are not."""
        return (USUAL_BATCH if self.max_batch_size is None else self.max_batch_size) if self.place.gathers else 0

    @property
    def usual(self) -> int:
        """The batch that is served most."""
        return self.preferred_batch_sizes[-1] if self.preferred_batch_sizes else min(8, self.largest)


def write_triton(
    job: Job,
    path: Path,
    *,
    backend: str = "onnxruntime",
    name: str = "model",
    max_batch_size: int | None = None,
    preferred_batch_sizes: tuple[int, ...] = (),
    max_queue_delay_us: int = 100,
    instances: int = 1,
    kind: str | None = None,
    accelerator: str | None = None,
    version: int = 1,
    versions_kept: int = 1,
    warmup: bool = True,
    inner: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a folder that holds `<name>/config.pbtxt`, `labels.txt` and `<version>/model.onnx` (.plan, .pt, .xml).

    Triton gathers requests into batches of up to `max_batch_size` (32), if it can of one of `preferred_batch_sizes`,
    and waits for `max_queue_delay_us` for more; it runs `instances` copies on the "cpu", on each "gpu", or where it
    likes ("auto"). With `warmup` each of these batch sizes is run once before the model is ready. The `versions_kept`
    latest versions in the folder are served. `accelerator` may be "tensorrt", for onnxruntime on a GPU; `inner` are
    settings of the format inside. Gives what the exporter of that file gives; "settings" say where it lies.

    Raises:
        RecipeError: if a setting makes no sense, or if the file does not take the batches.
        ExportError, MissingDependency: as the exporter of the file inside.
    """
    given = locals()
    options = {each.name: given[each.name] for each in dataclasses.fields(Serving)} | {"inner": dict(inner or {})}
    serving = coerce(Serving(), options, "triton")
    from chase.exporters.formats import check  # which imports this module

    if serving.accelerator and job.precision not in PRECISION_MODES:
        raise RecipeError(f"the accelerator tensorrt takes {', '.join(PRECISION_MODES)}, not {job.precision}")
    settings = _inner_settings(serving)
    exporter = check(serving.place.format, job.precision, settings)
    file = path / serving.name / str(serving.version) / serving.place.file
    file.parent.mkdir(parents=True)
    facts = exporter.write(job, file, **settings)
    _check_range(facts.get("batch_sizes"), serving)
    classes = [" ".join(each.split()) for each in job.facts.get("classes", ())]
    if classes:
        (path / serving.name / "labels.txt").write_text("".join(f"{each}\n" for each in classes), encoding="utf-8")
    (path / serving.name / "config.pbtxt").write_text(text(config(job, serving)) + "\n")
    said = dataclasses.asdict(serving) | {
        "inner": facts.get("settings", settings),
        "inner_format": serving.place.format,
        "inner_path": file.relative_to(path).as_posix(),
    }
    return facts | {
        "files": (),
        "batch_sizes": (1, serving.usual, serving.largest) if serving.largest else facts.get("batch_sizes"),
        "settings": json.loads(json.dumps(said)),  # as the sidecar gives it back
    }


def _inner_settings(serving: Serving) -> dict[str, Any]:
    """The settings of the file inside: an engine is built for the batches that it will be given."""
    sizes = {"batch_sizes": (1, serving.usual, serving.largest)} if serving.place.format == "tensorrt" else {}
    return sizes | serving.inner


def _check_range(sizes: tuple[int, ...] | None, serving: Serving) -> None:
    if sizes and serving.largest and not (sizes[0] == 1 and serving.largest <= sizes[-1]):
        taken = f"the {serving.place.format} file takes batches of {sizes[0]} to {sizes[-1]}"
        raise RecipeError(f"{taken}, but Triton is to send 1 to {serving.largest}; change max_batch_size or inner")


def config(job: Job, serving: Serving) -> dict[str, Any]:
    """The fields of Triton's ModelConfig."""
    kind = serving.kind or ("auto" if "auto" in serving.place.kinds else serving.place.kinds[0])
    entry = _input(job, serving)
    fields: dict[str, Any] = {
        "name": serving.name,
        "backend": serving.backend,
        "max_batch_size": serving.largest,
        "input": entry,
        "output": _output(job, serving),
        "version_policy": {"latest": {"num_versions": serving.versions_kept}},
        "instance_group": {"count": serving.instances, "kind": Word(f"KIND_{kind.upper()}")},
    }
    if serving.largest:
        sizes = {"preferred_batch_size": [*serving.preferred_batch_sizes]} if serving.preferred_batch_sizes else {}
        fields["dynamic_batching"] = sizes | {"max_queue_delay_microseconds": serving.max_queue_delay_us}
    if serving.accelerator:
        mode = {"key": "precision_mode", "value": PRECISION_MODES[job.precision]}
        accelerator = {"name": serving.accelerator, "parameters": mode}
        fields["optimization"] = {"execution_accelerators": {"gpu_execution_accelerator": accelerator}}
    if serving.warmup:
        dims = [abs(side) for side in entry["dims"]]  # an open batch is one of 1
        zeros = {"data_type": entry["data_type"], "dims": dims, "zero_data": True}
        fields["model_warmup"] = [
            {"name": f"batch of {size}", "batch_size": size, "inputs": {"key": entry["name"], "value": zeros}}
            for size in sorted({1, *serving.preferred_batch_sizes, max(1, serving.largest)})
        ]
    return fields


def _input(job: Job, serving: Serving) -> dict[str, Any]:
    """Without the batch, or with an open one where Triton does not gather any."""
    element = "TYPE_UINT8" if job.example.dtype == torch.uint8 else "TYPE_FP32"
    dims = [*_batch(serving), *job.example.shape[1:]]
    return {"name": serving.place.input or "input", "data_type": Word(element), "dims": dims}


def _output(job: Job, serving: Serving) -> dict[str, Any]:
    with torch.inference_mode():
        classes = job.model(job.example).shape[1]
    name = serving.place.output or ("probabilities" if job.facts.get("preprocessing") else "logits")
    labels = {"label_filename": "labels.txt"} if job.facts.get("classes") else {}
    return {"name": name, "data_type": Word("TYPE_FP32"), "dims": [*_batch(serving), classes], **labels}


def _batch(serving: Serving) -> list[int]:
    return [] if serving.largest else [-1]


class Word(str):
    """A name of an enumeration, which protobuf's text format writes without quotes."""


def text(fields: Mapping[str, Any], indent: str = "") -> str:
    """The fields of a message in protobuf's text format: mappings are messages, lists are repeated."""
    lines = []
    for key, value in fields.items():
        if isinstance(value, list) and not isinstance(value[0], Mapping):
            lines.append(f"{indent}{key}: [{', '.join(map(_scalar, value))}]")
            continue
        for each in value if isinstance(value, list) else [value]:
            message = isinstance(each, Mapping)
            inside = f" {{\n{text(each, indent + '  ')}\n{indent}}}" if message else f": {_scalar(each)}"
            lines.append(f"{indent}{key}{inside}")
    return "\n".join(lines)


def _scalar(value: object) -> str:
    return str(value) if isinstance(value, Word) else json.dumps(value)
