"""TensorRT: a place in the list, and an honest answer until engines are supported."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import ClassVar, NoReturn

import torch

from chase.errors import MissingDependency

_INSTALL = "TensorRT is not installed; run: pip install 'chase-sparse[tensorrt]'"
_LATER = "this version of Chase does not build or run engines"
_INSTEAD = "export to ONNX and build one with `trtexec --onnx=model.onnx --saveEngine=model.engine`"


def refuse() -> NoReturn:
    """Say what is missing for TensorRT.

    Raises:
        MissingDependency: always.
    """
    if importlib.util.find_spec("tensorrt") is None:
        raise MissingDependency(f"{_INSTALL} (and {_LATER} yet: {_INSTEAD})")
    raise MissingDependency(f"TensorRT is installed, but {_LATER} yet: {_INSTEAD}")


class _TensorRT:
    """Opens a TensorRT engine, from a later version on."""

    formats: ClassVar[tuple[str, ...]] = ("tensorrt",)

    def __call__(self, source: Path, *, device: torch.device, threads: int | None = None) -> NoReturn:
        refuse()


TensorRT = _TensorRT()
