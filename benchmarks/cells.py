"""Cells: the ways to run the shapes of a network, by format, runtime, precision and layout in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from chase.benchmarks.candidates import GRAPH
from chase.errors import ChaseError, MissingDependency
from chase.runtimes import RUNTIMES

TF32 = "tf32"
"""As a precision: fp32 whose products a GPU may round the factors of."""


@dataclass(frozen=True)
class Cell:
    """One way to run all shapes of a network: a format ("module" for none), its runtimes, precision and layout."""

    format: str
    runtimes: tuple[str, ...]
    precision: str = "fp32"
    channels_last: bool = False

    @property
    def suffix(self) -> str:
        """What follows the names of shapes: rows of one name and runtime must differ in nothing else."""
        precision = f" {self.precision}" if self.precision != "fp32" else ""
        return precision + (" channels-last" if self.channels_last else "")


CPU = (
    Cell("onnx", ("onnxruntime",)),
    Cell("openvino", ("openvino",)),
    Cell("torchscript", ("torchscript",)),
    Cell("module", ("eager",)),
)
LAYOUTS = (False, True)
GPU = (
    *(
        Cell("module", ("eager", "eager+cuda-graph"), precision, layout)
        for layout in LAYOUTS
        for precision in ("fp16", "fp32", TF32, "bf16")
    ),
    *(Cell("torchscript", ("torchscript",), precision) for precision in ("fp16", "fp32", TF32, "bf16")),
    *(Cell("onnx", ("onnxruntime",), precision) for precision in ("fp16", "fp32", TF32)),
    *(Cell("tensorrt", ("tensorrt", "tensorrt+cuda-graph"), precision) for precision in ("fp16", "fp32", TF32)),
    *(Cell("onnx", ("onnxruntime-tensorrt",), precision) for precision in ("fp16", TF32)),  # it cannot do without TF32
    *(
        Cell("module", ("compiled",), precision, layout)
        for layout in LAYOUTS
        for precision in ("fp16", "fp32", TF32, "bf16")
    ),
)
"""On a GPU, what is told soonest first: to compile each shape for each batch size takes longest."""


def able_runtimes(cell: Cell, device: torch.device, network: str, left_out: list[str]) -> list[str]:
    """The runtimes of a cell that work here, asked before anything is exported for them."""
    able = []
    for runtime in cell.runtimes:
        try:
            _check(runtime, device, tf32=cell.precision == TF32)
            able.append(runtime)
        except ChaseError as error:
            left_out.append(f"{network} on {runtime}: {error}")
    return able


def _check(runtime: str, device: torch.device, *, tf32: bool) -> None:
    if device.type != "cuda" and (tf32 or runtime.endswith(GRAPH)):
        raise MissingDependency(f"{'TF32 is' if tf32 else 'CUDA graphs are'} for NVIDIA GPUs, not for {device}")
    name = runtime.removesuffix(GRAPH)
    more = getattr(RUNTIMES[name], "more_checks", {})
    for check in (getattr(RUNTIMES[name], "check", None), more.get(f"{name} on {device.type}")):
        if check is not None:
            check()
