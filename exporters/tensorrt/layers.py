"""The layers of an engine, as TensorRT lists them.

An engine's inspector lists them as JSON, but only a GPU can load an engine. Ahead of time the same table is what a
builder writes to its log: TensorRT-RTX does, when the profiling verbosity is DETAILED.
"""

from __future__ import annotations

import json
import re
from typing import Any

from chase.errors import ExportError
from chase.runtimes.bindings import LAYER_TABLE, log_of

_LAYER = re.compile(
    r"Name: (?P<Name>.*?), LayerType: (?P<LayerType>.*?), Inputs: (?P<Inputs>\[.*?\]), (?:Constants: \[.*?\], )?"
    r"Outputs: (?P<Outputs>\[.*?\]), TacticName: (?P<TacticName>.*?), StreamId: \d+, Metadata: (?P<Metadata>.*)"
)
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: \[([-\d,]*)\].*?Datatype: (\w+)")


def inspected(trt: Any, plan: bytes) -> list[Any]:
    """The layers of an engine that was just built here, on this GPU, as its inspector describes them.

    Raises:
        ExportError: if the engine cannot be loaded.
    """
    log = log_of(trt)
    runtime = trt.Runtime(log)
    runtime.engine_host_code_allowed = True  # nobody else had this plan in their hands
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ExportError(f"the new engine cannot be loaded: {log.reason()}")
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    layers: list[Any] = json.loads(text)["Layers"]
    return layers


def logged(table: str) -> list[dict[str, Any]] | None:
    """The layers that a builder wrote to its log, under the names that an inspector uses; None if it wrote none."""
    if not table.startswith(LAYER_TABLE):
        return None
    lines = table.removeprefix(LAYER_TABLE).split("\n\n")[0].splitlines()
    return [_layer(line) for line in lines]


def _layer(line: str) -> dict[str, Any]:
    """One layer; a line of another form is kept as it is."""
    if not (found := _LAYER.fullmatch(line)):
        return {"Name": line}
    layer: dict[str, Any] = found.groupdict()
    return layer | {"Inputs": _tensors(layer["Inputs"]), "Outputs": _tensors(layer["Outputs"])}


def _tensors(text: str) -> list[dict[str, Any]]:
    return [
        {"Name": name, "Dimensions": [int(each) for each in dimensions.split(",") if each], "Datatype": datatype}
        for name, dimensions, datatype in _TENSOR.findall(text)
    ]
