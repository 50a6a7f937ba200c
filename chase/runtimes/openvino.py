"""OpenVINO, on the CPU."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from chase.artifact import Artifact
from chase.errors import CheckpointError, RecipeError, reason
from chase.packages import require
from chase.runtimes.base import BaseRuntime

INSTALL = "'chase-sparse[openvino]'"
_HINTS = {"fp16": "f16", "bf16": "bf16"}


class OpenVino(BaseRuntime):
    """An OpenVINO model (`.xml`, with its weights as `.bin` beside it).

    It computes in the precision of the file: left alone, OpenVINO rounds fp32 to bf16 or fp16 on processors that are
    faster with it. A file in fp16 is computed in fp32 where the processor has no fp16; `provider` says which it was.
    Without `threads` it takes as many as torch does.

    Raises:
        CheckpointError: if a file is missing, truncated or foreign.
        RecipeError: if the device is not the CPU.
        MissingDependency: if openvino is not installed.
    """

    formats: ClassVar[tuple[str, ...]] = ("openvino",)

    def __init__(self, source: Artifact, *, device: torch.device, threads: int | None = None) -> None:
        openvino = self.check()
        if device.type != "cpu":
            raise RecipeError(f"openvino runs on the CPU here, not on {device}; choose device cpu")
        model = _compiled(openvino, source, threads or torch.get_num_threads())
        self._request: Any = model.create_infer_request()
        where = ", ".join(model.get_property("EXECUTION_DEVICES"))
        precision = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        super().__init__("openvino", provider=f"{where} {precision}", device=device, threads=threads, artifact=source)

    def compute(self, x: Tensor) -> Tensor:
        """The logits of an input that fits the file."""
        found = self._request.infer({0: x.contiguous().numpy()}, share_inputs=True, share_outputs=False)
        return torch.from_numpy(found[0])

    @staticmethod
    def check() -> Any:
        """The package.

        Raises:
            MissingDependency: if it is not installed.
        """
        return require("openvino", purpose="running an OpenVINO model", install=INSTALL)


def _compiled(openvino: Any, source: Artifact, threads: int) -> Any:
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS.get(source.precision, "f32"),
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        head = source.path.read_bytes()[:256].lstrip()
        if not head.startswith((b"<?xml", b"<net")):  # OpenVINO would try all its readers, which complain on stderr
            raise CheckpointError("it is no XML")
        return openvino.Core().compile_model(str(source.path), "CPU", settings)
    except (OSError, RuntimeError, CheckpointError) as error:
        why = _reason(error)
        raise CheckpointError(f"{source.path.name} is not a whole OpenVINO model ({why}); export again") from error


def _reason(error: Exception) -> str:
    """OpenVINO's own reason, which comes after the places in its source."""
    lines = [line for line in str(error).splitlines() if line.strip() and "src/" not in line]
    return lines[0].strip() if lines else reason(error)
