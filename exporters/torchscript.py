"""TorchScript export: traced, frozen (BatchNorm folded into convolutions) and saved."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.jit import TracerWarning  # type: ignore[attr-defined]

from chase.errors import ExportError, reason
from chase.exporters.compression import deflated
from chase.exporters.job import Job, where
from chase.runtimes.torchscript import no_deprecation


def write_torchscript(job: Job, path: Path, *, compress: bool = False) -> dict[str, Any]:
    """Write a frozen TorchScript file that takes any batch size; there are no further facts.

    `compress` deflates it, which makes zeros nearly free and loading a little slower. What
    `torch.jit.optimize_for_inference` returns can be saved but not loaded, so it is not used.

    Raises:
        ExportError: if the model cannot be traced.
    """
    try:
        with no_deprecation(), warnings.catch_warnings():
            # what they warn of, a trace that holds for the example alone, is what the parity check finds
            warnings.simplefilter("ignore", TracerWarning)
            traced = torch.jit.trace(job.model, (job.example,), check_trace=False)
            frozen = torch.jit.freeze(traced)
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        name = type(job.model).__name__
        raise ExportError(f"TorchScript cannot trace {name}: {reason(error)}{where(error)}") from error
    buffer = io.BytesIO()  # torch's own file writer aborts the process on a full disk
    with no_deprecation():
        torch.jit.save(frozen, buffer)
    path.write_bytes(buffer.getbuffer())
    if compress:
        deflated(path)
    return {}
