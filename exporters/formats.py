"""The formats: what writes each, which precisions it can hold, and what it needs."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chase.errors import MissingDependency, RecipeError, UnknownName
from chase.exporters.aoti import write_aoti
from chase.exporters.executorch import write_executorch
from chase.exporters.onnx import write_onnx
from chase.exporters.openvino import write_openvino
from chase.exporters.tensorrt import write_tensorrt, write_tensorrt_rtx
from chase.exporters.torch_export import write_torch_export
from chase.exporters.torchscript import write_torchscript
from chase.exporters.triton import write_triton
from chase.recipe import typed
from chase.registry import Registry, did_you_mean

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8-fp16", "fp8")
"""Of the arithmetic; int8 and fp8 quantise convolutions and matrix products and leave the rest in fp32 (or fp16)."""
FLOATS = PRECISIONS[:3]

Writer = Callable[..., dict[str, Any]]  # (job, path, **settings) -> further fields of Artifact


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """A format. `needs` maps packages that must be there to how they are installed."""

    write: Writer
    suffix: str
    about: str
    precisions: tuple[str, ...] = ("fp32",)
    needs: Mapping[str, str] = field(default_factory=dict)
    through_onnx: bool = False

    def settings(self) -> dict[str, Any]:
        """The names of the writer's own settings and their defaults."""
        parameters = inspect.signature(self.write).parameters.values()
        return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}

    def missing(self) -> str | None:
        """What keeps this machine from writing the format, and the command that mends it; None if nothing does."""
        for package, install in self.needs.items():
            try:
                importlib.import_module(package)
            except (ImportError, OSError) as error:
                return f"{package} does not load ({error}); run: pip install {install}"
        return None


_ONNX = {"onnx": "onnx", "onnxscript": "onnxscript", "onnxslim": "onnxslim"}

EXPORTERS: Registry[Exporter] = Registry(
    "exporter",
    {
        "torchscript": Exporter(
            write=write_torchscript, suffix=".ts", about="frozen TorchScript, for libtorch", precisions=FLOATS
        ),
        "onnx": Exporter(
            write=write_onnx,
            suffix=".onnx",
            about="one ONNX file",
            precisions=PRECISIONS,
            needs=_ONNX,
            through_onnx=True,
        ),
        "tensorrt": Exporter(
            write=write_tensorrt,
            suffix=".engine",
            about="TensorRT 10.12 and later, for this machine's GPU",
            precisions=PRECISIONS,
            needs=_ONNX | {"tensorrt": "'chase-sparse[tensorrt]'"},
            through_onnx=True,
        ),
        "tensorrt-rtx": Exporter(
            write=write_tensorrt_rtx,
            suffix=".rtx.engine",
            about="TensorRT for RTX, built ahead of time for RTX GPUs",
            precisions=PRECISIONS,
            needs=_ONNX | {"tensorrt_rtx": "'chase-sparse[tensorrt-rtx]'"},
            through_onnx=True,
        ),
        "torch-export": Exporter(
            write=write_torch_export, suffix=".pt2", about="a torch.export program", precisions=FLOATS
        ),
        "aoti": Exporter(
            write=write_aoti, suffix=".aoti.pt2", about="compiled ahead of time by AOTInductor", precisions=FLOATS
        ),
        "openvino": Exporter(
            write=write_openvino,
            suffix=".xml",
            about="OpenVINO IR, for Intel CPUs",
            precisions=("fp32", "fp16", "int8"),
            needs=_ONNX | {"openvino": "'chase-sparse[openvino]'"},
            through_onnx=True,
        ),
        "executorch": Exporter(
            write=write_executorch,
            suffix=".pte",
            about="ExecuTorch with XNNPACK, for ARM and x86 devices",
            needs={"executorch": "'chase-sparse[executorch]'"},
        ),
        "triton": Exporter(
            write=write_triton,
            suffix=".triton",
            about="a model repository for Triton Inference Server",
            precisions=PRECISIONS,
            through_onnx=True,
        ),
    },
)


def format_of(path: Path) -> str:
    """The format that a path's suffix stands for, the longest one that fits.

    Raises:
        RecipeError: if none does.
    """
    found = [name for name, each in EXPORTERS.items() if path.name.endswith(each.suffix)]
    if found:
        return max(found, key=lambda name: len(EXPORTERS[name].suffix))
    known = ", ".join(f"{each.suffix} ({name})" for name, each in EXPORTERS.items())
    raise RecipeError(f"{path.name} does not say its format; name one or use a known suffix: {known}")


def is_exported(name: str) -> bool:
    """Whether a file's name is that of an exported one."""
    return name.endswith(tuple(each.suffix for each in EXPORTERS.values()))


def default_name(format: str, precision: str) -> str:
    """The file that a network is exported to, such as "model.onnx", "model.fp16.onnx"."""
    middle = "" if precision == "fp32" else f".{precision}"
    return f"model{middle}{EXPORTERS[format].suffix}"


def check(format: str, precision: str, settings: Mapping[str, Any]) -> Exporter:
    """The exporter of a format, which can hold the precision and has the settings.

    Raises:
        RecipeError: if it cannot, or has not, or not with such a value; UnknownName if there is no such format.
        MissingDependency: if a package that it needs is missing.
    """
    exporter = EXPORTERS[format]
    if precision not in PRECISIONS:
        raise UnknownName(f"no precision named {precision!r}; {did_you_mean(precision, PRECISIONS)}")
    if precision not in exporter.precisions:
        able = ", ".join(exporter.precisions)
        raise RecipeError(f"{format} cannot hold {precision}; it takes {able}")
    known, hints = exporter.settings(), typing.get_type_hints(exporter.write)
    for name, value in settings.items():
        if name not in known:
            hint = did_you_mean(name, known) if known else "it has none"
            raise RecipeError(f"the exporter {format} has no setting {name!r}; {hint}")
        if name in hints:
            typed(value, hints[name], f"{format}: {name}")
    if missing := exporter.missing():
        raise MissingDependency(f"exporting to {format}: {missing}")
    return exporter
