"""OpenVINO export: the ONNX graph as OpenVINO's own format, an .xml file with its weights beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chase.errors import ExportError, reason
from chase.exporters.job import Job
from chase.packages import require


def write_openvino(
    job: Job, path: Path, *, opset: int | None = None, calibration_method: str = "minmax"
) -> dict[str, Any]:
    """Write an OpenVINO model that takes any batch size, and its weights as `.bin`; gives that file and the opset.

    The precision is that of the ONNX graph: weights are never rounded to fp16 here. The settings are those of ONNX.

    Raises:
        ExportError: if the model cannot be exported to ONNX, or OpenVINO cannot read that.
        MissingDependency: if openvino or a package for ONNX is not installed.
    """
    from chase.exporters.onnx import onnx_proto

    openvino = require("openvino", purpose="exporting to OpenVINO", install="'chase-sparse[openvino]'")
    proto, facts = onnx_proto(job, opset=opset, calibration_method=calibration_method)
    try:
        model = openvino.Core().read_model(proto.SerializeToString())
        openvino.save_model(model, str(path), compress_to_fp16=False)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot read the ONNX graph: {reason(error)}") from error
    return facts | {"files": (path.with_suffix(".bin").name,)}
