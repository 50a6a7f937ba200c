"""torch.export: a program of torch's own operators, which needs torch, but none of the model's Python code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn
from torch.export import ExportedProgram

from chase.artifact import Artifact
from chase.errors import CheckpointError, reason
from chase.runtimes.eager import TorchRuntime
from chase.runtimes.pt2 import check_archive
from chase.tracing import quiet


class TorchExport(TorchRuntime):
    """A `.pt2` file of torch.export.

    Raises:
        CheckpointError: if the file is missing, truncated, foreign, or holds more than tensors and operators on them.
    """

    formats: ClassVar[tuple[str, ...]] = ("torch-export",)

    def __init__(self, source: Artifact, *, device: torch.device, threads: int | None = None) -> None:
        module = _load(source, device)
        super().__init__(module, "torch-export", device=device, threads=threads, artifact=source)


def load_program(path: Path) -> ExportedProgram:
    """The program in a `.pt2` file, once it was seen to hold tensors and operators alone.

    Raises:
        CheckpointError: if it holds more. Whatever torch's readers raise on a broken file passes through.
    """
    from torch.export.pt2_archive._package import load_pt2  # without the way back to older files of torch.export.load

    content = path.read_bytes()
    check_archive(io.BytesIO(content))
    with quiet():
        program: ExportedProgram = load_pt2(io.BytesIO(content)).exported_programs["model"]
        return program


def _load(source: Artifact, device: torch.device) -> nn.Module:
    from torch.export.passes import move_to_device_pass

    try:
        with quiet():
            module: nn.Module = move_to_device_pass(load_program(source.path), device).module()
    except CheckpointError as error:
        raise CheckpointError(f"{source.path.name} {error}") from error
    except Exception as error:  # of the reader of archives, or of the one of programs
        name = source.path.name
        raise CheckpointError(
            f"{name} is not a whole program of torch.export ({reason(error)}); export again"
        ) from error
    return module
