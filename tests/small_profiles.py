"""A small network whose profile is known, for the tests of profiles."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    """Widths 13 and 16, a depthwise layer, and four classes."""
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 13, 3), nn.ReLU(), nn.Conv2d(13, 16, 1), nn.Conv2d(16, 16, 3, groups=16)]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()


MACS = {"0": 13 * 27 * 36, "2": 16 * 13 * 36, "3": 16 * 9 * 16, "6": 16 * 4}
WIDTHS = {"0": [3, 13], "2": [13, 16], "3": [16, 16], "6": [16, 4]}
ALIGNED = {"0": False, "2": False, "3": True, "6": True}


def weighted(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """One field of the layers that have MACs."""
    return {each["layer"]: each[name] for each in found if each["macs"]}
