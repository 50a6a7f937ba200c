"""ExecuTorch export: a program for phones and small boards, with XNNPACK for all that it can compute."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from chase.errors import ExportError, reason
from chase.exporters.job import Job, checked_batch_sizes, where
from chase.runtimes.executorch import executorch
from chase.tracing import arguments, operator, quiet


def write_executorch(job: Job, path: Path, *, batch_sizes: Sequence[int] = (1, 1, 8)) -> dict[str, Any]:
    """Write a `.pte` program; gives the batch sizes that it takes, and the operators that XNNPACK leaves out.

    Those run on ExecuTorch's portable kernels, which are slow. ExecuTorch plans its memory beforehand: for the largest
    of `batch_sizes`.

    Raises:
        RecipeError: if the batch sizes make no sense.
        ExportError: if torch.export cannot follow the model, or ExecuTorch cannot lower it.
        MissingDependency: if executorch is not installed.
    """
    sizes = checked_batch_sizes(batch_sizes)
    with executorch(purpose="exporting to ExecuTorch"):
        content, portable = _lowered(_bounded(job, sizes[0], sizes[-1]), type(job.model).__name__)
    path.write_bytes(content)
    return {"batch_sizes": sizes, "built_for": {"backend": "XNNPACK", "portable": portable}}


def _bounded(job: Job, smallest: int, largest: int) -> ExportedProgram:
    """The forward pass for batches of `smallest` to `largest`."""
    shapes = ({0: Dim("batch", min=smallest, max=largest)},) if smallest < largest else None
    example = arguments(job.example, batch=largest)
    try:
        with quiet():
            return torch.export.export(job.model, example, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        name = type(job.model).__name__
        raise ExportError(f"torch.export cannot follow {name}: {reason(error)}{where(error)}") from error


def _lowered(program: ExportedProgram, name: str) -> tuple[bytes, list[str]]:
    """The file, and the operators in it that XNNPACK does not compute."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    try:
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        portable = {operator(node) for node in edge.exported_program().graph.nodes if node.op == "call_function"}
        return bytes(edge.to_executorch().buffer), sorted(
            each for each in portable if re.match(r"aten\.(?!sym_)", each)
        )
    except Exception as error:  # whatever its passes raise on operators that they do not know
        raise ExportError(f"ExecuTorch cannot lower {name}: {reason(error)}") from error
