"""ONNX export, through torch.export."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chase import __version__
from chase.errors import ExportError, RecipeError
from chase.runtimes.base import reason, require

OPSETS = range(18, 24)  # torch does not write older ones; newer ones are beyond what it states
_LIMIT_BYTES = 2 * 1024**3  # of one protobuf file


def write_onnx(
    model: nn.Module, path: Path, *, example: Tensor, facts: Mapping[str, Any], opset: int = 20
) -> dict[str, Any]:
    """Write an ONNX file with input "input" and output "logits", whose batch size is open; gives its opset.

    Raises:
        RecipeError: if `opset` is not one of OPSETS.
        ExportError: if the model cannot be exported or needs more than 2 GB, or the file is not as asked for.
        MissingDependency: if onnx or onnxscript is not installed.
    """
    if opset not in OPSETS:
        raise RecipeError(f"opset {opset} is outside {OPSETS[0]} to {OPSETS[-1]}; 20 is the default")
    if (size := sum(tensor.nbytes for tensor in model.state_dict().values())) >= _LIMIT_BYTES:
        raise ExportError(f"the weights take {size} bytes; an ONNX file holds less than 2 GB")
    onnx = require("onnx", purpose="exporting to ONNX", install="onnx onnxscript")
    require("onnxscript", purpose="exporting to ONNX", install="onnx onnxscript")
    _write(model, path, example, opset)
    try:
        proto = onnx.load(str(path))
        _label(proto, facts)
        onnx.save(proto, str(path))
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"onnx.checker refuses the exported file: {reason(error)}") from error
    if (written := _opset(proto)) != opset:
        raise ExportError(f"torch wrote opset {written} instead of {opset}; ask for opset {written}")
    return {"opset": written}


def _write(model: nn.Module, path: Path, example: Tensor, opset: int) -> None:
    try:
        with _silence():
            torch.onnx.export(
                model,
                (example,),
                str(path),
                dynamo=True,
                dynamic_shapes=({0: "batch"},),
                input_names=["input"],
                output_names=["logits"],
                opset_version=opset,
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except OSError:
        raise
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise ExportError(f"torch.onnx cannot export {type(model).__name__}: {reason(error)}") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's progress lines, and its account of a failure, off both output streams."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _label(proto: Any, facts: Mapping[str, Any]) -> None:
    """Write into the file what a user of it alone needs to know."""
    proto.producer_name, proto.producer_version = "chase", __version__
    for key in ("classes", "mean", "std", "parent_sha256", "versions"):
        if value := facts.get(key):
            entry = proto.metadata_props.add()
            entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)


def _opset(proto: Any) -> int:
    """The version of ONNX's own operators."""
    return next(int(entry.version) for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
