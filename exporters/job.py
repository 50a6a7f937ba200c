"""Job: what a writer is given, and the torch.export program that most of them begin with."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from chase.errors import ExportError, RecipeError, reason
from chase.exporters.parity import Gate
from chase.tracing import arguments, quiet

Progress: TypeAlias = Callable[[int, int, str], None]
"""Told how many steps are done, of how many, and what is being done."""


def silent(done: int, total: int, what: str) -> None:
    """Progress that nobody is told of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A network to be written, and what is known of it.

    `model` is in eval mode, on the CPU, takes `example` [1, ...] with any number of rows and answers with float32
    logits [b, classes]; for fp16 and bf16 it computes in that precision inside. `samples` [n, ...] are inputs that the
    file will be held to `gate` on. For the integer and 8-bit precisions `calibration` [m, ...] are training inputs,
    and `keep_fp32` names the layers that stay as they are. `facts` are the fields of Artifact that are known already.
    """

    model: nn.Module
    example: Tensor
    samples: Tensor
    gate: Gate
    precision: str = "fp32"
    calibration: Tensor | None = None
    keep_fp32: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress = silent


def checked_batch_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """The smallest, the usual and the largest batch size.

    Raises:
        RecipeError: if they are not three numbers from 1 up that rise.
    """
    if len(sizes) != 3 or list(sizes) != sorted(sizes) or sizes[0] < 1:
        given = ":".join(map(str, sizes))
        raise RecipeError(f"batch sizes {given} are not MIN:OPT:MAX in rising order, as in 1:8:32")
    return tuple(sizes)


def exported(model: nn.Module, example: Tensor) -> ExportedProgram:
    """The forward pass of a model in eval mode on inputs like `example` [b, ...] for any batch size.

    Raises:
        ExportError: if torch.export cannot follow it; the message names the line of the model where it stopped.
    """
    try:
        with quiet():
            shapes = ({0: Dim("batch", min=1)},)
            return torch.export.export(model, arguments(example, batch=2), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise ExportError(
            f"torch.export cannot follow {type(model).__name__}: {reason(error)}{where(error)}"
        ) from error


def where(error: BaseException) -> str:
    """The innermost line of the model's own code that `error` passed through, as " (in net.py:12, forward)"."""
    while error.__cause__ is not None:
        error = error.__cause__
    inside = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(inside)]
    if not frames:
        return ""
    last = frames[-1]
    return f" (in {Path(last.filename).name}:{last.lineno}, {last.name})"
