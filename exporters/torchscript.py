"""TorchScript export: traced, frozen (BatchNorm folded into convolutions) and saved."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]

from chase.errors import ExportError
from chase.runtimes.base import reason
from chase.runtimes.torchscript import no_deprecation


def write_torchscript(model: nn.Module, path: Path, *, example: Tensor, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write a frozen TorchScript file that takes any batch size; nothing to add to the artifact's facts.

    What `torch.jit.optimize_for_inference` returns can be saved but not loaded, so it is not used.

    Raises:
        ExportError: if the model cannot be traced.
    """
    try:
        with no_deprecation(), warnings.catch_warnings():
            # what they warn of, a trace that holds for the example alone, is what the parity check finds
            warnings.simplefilter("ignore", TracerWarning)
            traced = torch.jit.trace(model, (example,), check_trace=False)
            frozen = torch.jit.freeze(traced)
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise ExportError(f"TorchScript cannot trace {type(model).__name__}: {reason(error)}") from error
    buffer = io.BytesIO()  # torch's own file writer aborts the process on a full disk
    with no_deprecation():
        torch.jit.save(frozen, buffer)
    path.write_bytes(buffer.getbuffer())
    return {}
