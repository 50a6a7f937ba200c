"""Networks that no constructor can build again: their forward pass as data, through `torch.export`.

A program is fixed: evaluation mode, any batch size, the other sizes of the example. Reading one never unpickles:
archives that hold anything but graphs and plain tensors are refused.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from chase.errors import CheckpointError, TraceError
from chase.tracing import arguments, evaluating, quiet


class Program(nn.Module):
    """A network given by its graph; it has no training mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        """What the exported forward pass returns for inputs [b, ...]."""
        return self.network(x)

    def train(self, mode: bool = True) -> Program:
        """Only notes the mode; the graph is that of the evaluation."""
        self.training = mode
        return self


def to_program(model: nn.Module, example: Tensor) -> Tensor:
    """The forward pass of `model` on inputs like `example` [b, ...], and its weights, as an archive, uint8 [bytes].

    Raises:
        TraceError: if `torch.export` cannot follow the forward pass for any batch size.
    """
    pair, shapes, buffer = arguments(example, batch=2), ({0: Dim.AUTO},), io.BytesIO()
    with evaluating(model), quiet():
        try:
            torch.export.save(torch.export.export(model, pair, dynamic_shapes=shapes, strict=False), buffer)
        except Exception as error:  # whatever the user's forward raises
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TraceError(f"cannot export {type(model).__name__} as a program: {reason}") from error
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def from_program(archive: Tensor) -> Program:
    """The network that `to_program` stored.

    Raises:
        CheckpointError: if the archive is broken, or holds objects that would have to be unpickled.
    """
    data = archive.numpy().tobytes()
    try:
        _refuse_objects(data)
        with quiet():
            graph = torch.export.load(io.BytesIO(data)).module(check_guards=False)
    except CheckpointError:
        raise
    except Exception as error:  # a broken archive can fail anywhere inside the reader
        raise CheckpointError(
            "the stored program cannot be read; it is broken, or of another version of torch"
        ) from error
    return Program(graph).eval()


def _refuse_objects(data: bytes) -> None:
    """Torch's own reader would unpickle what an archive marks so; these are never written by `to_program`."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            entry = name.rpartition("/")[2]
            plain = not entry.startswith(("custom_obj", "opaque_obj"))
            if entry.endswith(".json"):
                plain = plain and "true" not in _pickle_marks(json.loads(archive.read(name)))
            elif entry.endswith(".pt"):
                plain = plain and _is_plain(archive.read(name))
            if not plain:
                raise CheckpointError(f"the stored program holds an object that would be unpickled ({name}); refused")


def _pickle_marks(value: Any) -> set[str]:
    """The values of all "use_pickle" in a document, as JSON."""
    if isinstance(value, dict):
        marks = {json.dumps(value["use_pickle"])} if "use_pickle" in value else set()
        return marks.union(*map(_pickle_marks, value.values()))
    return set().union(*map(_pickle_marks, value)) if isinstance(value, list) else set()


def _is_plain(data: bytes) -> bool:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception:  # anything that is not plain data
        return False
    return True
