"""torch.export: the program itself, operator by operator, for PyTorch without the model's code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from chase.errors import ExportError, reason
from chase.exporters.compression import deflated
from chase.exporters.job import Job, exported
from chase.tracing import quiet


def write_torch_export(job: Job, path: Path, *, compress: bool = False) -> dict[str, Any]:
    """Write a `.pt2` file that takes any batch size; there are no further facts.

    It holds the operators and the weights alone: neither the example nor the paths of the model's code. `compress`
    deflates it, which makes zeros nearly free and loading a little slower.

    Raises:
        ExportError: if torch.export cannot follow the model, or cannot write what it found.
    """
    program = exported(job.model, job.example)
    _forget(program)
    buffer = io.BytesIO()
    try:
        with quiet():
            torch.export.save(program, buffer)
    except Exception as error:  # of the writer, or of any object that the model holds
        name = type(job.model).__name__
        raise ExportError(f"torch.export cannot write the program of {name}: {reason(error)}") from error
    path.write_bytes(buffer.getbuffer())
    if compress:
        deflated(path)
    return {}


def _forget(program: ExportedProgram) -> None:
    """Drop the example, which may be somebody's picture, and the notes on where in the code a node comes from."""
    program.example_inputs = None
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            node.meta = {key: value for key, value in node.meta.items() if key == "val"}
