"""The Python bindings of TensorRT and of TensorRT for RTX: which there are, and the one logger that they share."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from chase.errors import MissingDependency
from chase.packages import require

LAYER_TABLE = "Layers:\n"
"""How the line of a builder's log begins that lists the layers of the engine."""

_LONGEST = 400


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """One of NVIDIA's two products with this API; older versions than `floor` are refused."""

    title: str
    module: str
    floor: tuple[int, int]


FLAVOURS = {
    "tensorrt": Flavour(title="TensorRT", module="tensorrt", floor=(10, 12)),
    "tensorrt-rtx": Flavour(title="TensorRT-RTX", module="tensorrt_rtx", floor=(1, 4)),
}


def bindings(flavour: str) -> Any:
    """The Python module of "tensorrt" or "tensorrt-rtx".

    Raises:
        MissingDependency: if it is not installed or too old.
    """
    known, install = FLAVOURS[flavour], f"'chase-sparse[{flavour}]'"
    trt = require(known.module, purpose=f"a {known.title} engine", install=install)
    if release(trt.__version__) < known.floor:
        floor = ".".join(map(str, known.floor))
        old = f"{known.title} {trt.__version__} is older than {floor}"
        raise MissingDependency(f"{old}; run: pip install --upgrade {install}")
    return trt


def release(version: str) -> tuple[int, int]:
    """Major and minor of a version, such as (11, 4)."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


@functools.cache
def log_of(trt: Any) -> Any:
    """The logger of a module of bindings, which is the one logger of the process: TensorRT keeps the first it is given.

    It prints nothing. `errors` are those since `clear()`, `reason()` is the first of them, and `layers` is the table
    that a builder writes when its profiling verbosity is DETAILED.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.clear()

        def clear(self) -> None:
            self.errors: list[str] = []
            self.layers = ""

        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.errors.append(one_line(msg))
            elif msg.startswith(LAYER_TABLE):
                self.layers = msg

        def reason(self) -> str:
            return and_more(self.errors) if self.errors else "it gives no reason"

    return Log()


def one_line(text: str) -> str:
    """A message without its line breaks and control characters, shortened where it is very long."""
    text = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def and_more(messages: list[str]) -> str:
    """The first message, and how many follow it."""
    return messages[0] + (f" (and {len(messages) - 1} more)" if len(messages) > 1 else "")
