"""ONNX export: through torch.export, simplified, quantised where asked, labelled and checked."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from chase import __version__
from chase.errors import ExportError, RecipeError, reason
from chase.exporters.job import Job, where
from chase.exporters.parity import reference
from chase.packages import require
from chase.runtimes.compiled import no_logging
from chase.tracing import arguments

OPSETS = range(18, 24)  # torch does not write older ones; newer ones are beyond what it states
OPSET = 20
OPSET_OF_BF16 = 22  # the first whose convolutions take it
LABELS = ("classes", "mean", "std", "input_range", "preprocessing", "parent_sha256", "widths_sha256", "versions")
"""The facts that are written into the file."""

_LIMIT_BYTES = 2 * 1024**3  # of one protobuf file
_INSTALL = "onnx onnxscript onnxslim"
_made: WeakKeyDictionary[Job, dict[tuple[Any, ...], tuple[Any, dict[str, Any]]]] = WeakKeyDictionary()


def write_onnx(
    job: Job,
    path: Path,
    *,
    opset: int | None = None,
    dynamic_size: bool = False,
    calibration_method: str = "minmax",
    compress: bool = False,
) -> dict[str, Any]:
    """Write an ONNX file with input "input" and output "logits", whose batch size is open; gives its opset.

    `dynamic_size` leaves height and width open as well. `calibration_method` says how int8 and fp8 find their ranges
    (`chase.exporters.precision.quantize`). `compress` stores only the weights that are not zero, where that is smaller;
    ONNX Runtime reads such a file, TensorRT does not.

    Raises:
        RecipeError: if `opset` is not one of OPSETS, or too low for the precision.
        ExportError: if the model cannot be exported or needs more than 2 GB, or the file is not as asked for.
        MissingDependency: if a package is not installed.
    """
    proto, facts = onnx_proto(job, opset=opset, dynamic_size=dynamic_size, calibration_method=calibration_method)
    if compress:
        from chase.exporters.compression import sparse

        proto = sparse(proto)
    path.write_bytes(proto.SerializeToString())
    return facts


def onnx_bytes(job: Job, **settings: Any) -> bytes:
    """The ONNX file that other exporters begin with; `settings` are those of `onnx_proto`."""
    content: bytes = onnx_proto(job, **settings)[0].SerializeToString()
    return content


def onnx_proto(
    job: Job, *, opset: int | None = None, dynamic_size: bool = False, calibration_method: str = "minmax"
) -> tuple[Any, dict[str, Any]]:
    """The ModelProto of a job, and what is to be said of it; made once for the same job and settings."""
    from chase.exporters.precision.calibrate import check_method

    opset = _checked_opset(opset, job.precision)
    check_method(calibration_method)  # also where nothing is calibrated: a word that has no effect hides a mistake
    settings = (opset, dynamic_size, calibration_method)
    made = _made.setdefault(job, {})
    if settings not in made:
        proto = _simplified(_exported(job.model, job.example, opset, dynamic_size))
        proto, facts = _quantised(proto, job, calibration_method)
        _name_output(proto, "probabilities" if job.facts.get("preprocessing") else "logits")
        _label(proto, job.facts)
        _check(proto, opset)
        made[settings] = proto, {"opset": opset, **facts}
    return made[settings]


def _checked_opset(opset: int | None, precision: str) -> int:
    lowest = OPSET_OF_BF16 if precision == "bf16" else OPSETS[0]
    chosen = max(lowest, OPSET) if opset is None else opset
    if not lowest <= chosen <= OPSETS[-1]:
        default = max(lowest, OPSET)
        raise RecipeError(
            f"opset {chosen} is outside {lowest} to {OPSETS[-1]} for {precision}; {default} is the default"
        )
    return chosen


def _exported(model: nn.Module, example: torch.Tensor, opset: int, dynamic_size: bool) -> Any:
    if (size := sum(tensor.nbytes for tensor in model.state_dict().values())) >= _LIMIT_BYTES:
        raise ExportError(f"the weights take {size} bytes; an ONNX file holds less than 2 GB")
    for package in _INSTALL.split():
        require(package, purpose="exporting to ONNX", install=_INSTALL)
    rows, columns = (1, 2) if example.dtype == torch.uint8 else (2, 3)
    dims = {0: "batch"} | ({rows: "height", columns: "width"} if dynamic_size else {})
    try:
        with _silence():
            program: Any = torch.onnx.export(
                model,
                arguments(example, batch=2),  # of one row torch would make a constant in attention
                dynamo=True,
                dynamic_shapes=(dims,),
                input_names=["input"],
                output_names=["logits"],
                opset_version=opset,
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise ExportError(f"torch.onnx cannot export {type(model).__name__}: {reason(error)}{where(error)}") from error
    written = program.model_proto.graph.input[0].type.tensor_type.shape.dim
    if fixed := [name for axis, name in dims.items() if written[axis].dim_param != name]:
        raise ExportError(f"{type(model).__name__} fixes its {' and '.join(fixed)}; it cannot be left open")
    return program.model_proto


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's progress lines, and its account of a failure, off both output streams."""
    with no_logging(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _simplified(proto: Any) -> Any:
    """The same graph with constants folded and patterns fused; nodes keep what torch noted of their origin."""
    import onnxslim

    origins = {key: list(node.metadata_props) for node in proto.graph.node for key in (*node.output, node.name)}
    try:
        with _silence():
            slim = onnxslim.slim(proto)
    except Exception as error:  # whatever a foreign pass raises on a graph it does not know
        raise ExportError(f"onnxslim cannot simplify the graph: {reason(error)}") from error
    for node in slim.graph.node:
        if not node.metadata_props:
            node.metadata_props.extend(origins.get(node.name, origins.get(node.output[0], [])))
    return slim


def _quantised(proto: Any, job: Job, method: str) -> tuple[Any, dict[str, Any]]:
    if job.precision in ("fp32", "fp16", "bf16"):
        return proto, {}
    from chase.exporters.precision.quantize import quantized_within

    proto, kept = quantized_within(proto, job, reference(job.model, job.samples), method=method)
    return proto, {"keep_fp32": kept}


def _name_output(proto: Any, name: str) -> None:
    old = proto.graph.output[0].name
    for node in proto.graph.node:
        node.output[:] = [name if each == old else each for each in node.output]
        node.input[:] = [name if each == old else each for each in node.input]
    proto.graph.output[0].name = name


def _label(proto: Any, facts: Mapping[str, Any]) -> None:
    """Write into the file what a user of it alone needs to know."""
    proto.producer_name, proto.producer_version = "chase", __version__
    for key in LABELS:
        if value := facts.get(key):
            entry = proto.metadata_props.add()
            entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)


def _check(proto: Any, opset: int) -> None:
    import onnx

    try:
        onnx.checker.check_model(proto, full_check=True)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"onnx.checker refuses the exported file: {reason(error)}") from error
    written = next(int(entry.version) for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if written != opset:
        raise ExportError(f"torch wrote opset {written} instead of {opset}; ask for opset {written}")
