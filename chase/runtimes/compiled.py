"""Compiled: the network through torch.compile."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from chase.errors import MissingDependency
from chase.packages import require
from chase.runtimes.eager import TorchRuntime


class Compiled(TorchRuntime):
    """A copy of an nn.Module, in eval mode, compiled anew at its first call with each shape of input.

    It is compiled as a whole or not at all: torch would run what it cannot follow eagerly, without a word.

    Raises:
        MissingDependency: if there is no compiler for the device.
    """

    formats: ClassVar[tuple[str, ...]] = ("module",)

    def __init__(self, source: nn.Module, *, device: torch.device, threads: int | None = None) -> None:
        self.check(device)
        module = copy.deepcopy(source).to(device).eval()
        super().__init__(module, "compiled", device=device, threads=threads)
        self._compiled: dict[torch.Size, Callable[[Tensor], Any]] = {}

    def compute(self, x: Tensor) -> Tensor:
        """The logits [b, classes] of x [b, c, h, w]."""
        with torch.inference_mode():
            if x.shape not in self._compiled:
                with no_logging():
                    compiled = torch.compile(_call(self._module), fullgraph=True, dynamic=False)
                    compiled(x)
                self._compiled[x.shape] = compiled
            logits: Tensor = self._compiled[x.shape](x)
            return logits

    @staticmethod
    def check(device: torch.device | None = None) -> None:
        """Ask for the compiler.

        Raises:
            MissingDependency: if it is not there.
        """
        if device is not None and device.type == "cuda":
            require("triton", purpose="torch.compile on a GPU", install="triton")
        find_compiler(purpose="torch.compile")


def find_compiler(*, purpose: str) -> str:
    """The path of the C++ compiler that torch would call.

    Raises:
        MissingDependency: if it is not there.
    """
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++").split()[0]
    if found := shutil.which(name):
        return found
    raise MissingDependency(
        f"{purpose} needs the C++ compiler {name}; install it (Debian: apt-get install g++) or set CXX"
    )


@contextlib.contextmanager
def no_logging() -> Iterator[None]:
    """Without torch's remarks; what fails is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _call(module: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """`module` as a function with code of its own: torch compiles the same code eight times at most in a process."""

    def forward(x: Tensor) -> Any:
        return module(x)

    return types.FunctionType(forward.__code__.replace(), globals(), "forward", None, forward.__closure__)
