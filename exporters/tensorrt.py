"""TensorRT export: listed, so that asking for it says what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from chase.runtimes.tensorrt import refuse


def write_tensorrt(model: nn.Module, path: Path, *, example: Tensor, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write nothing yet.

    Raises:
        MissingDependency: always.
    """
    refuse()
