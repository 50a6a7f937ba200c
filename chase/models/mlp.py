"""A multi-layer perceptron for images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


class MLP(nn.Sequential):
    """Logits [n, num_classes] of images [n, in_channels, side, side]: a linear layer and a ReLU per width."""

    def __init__(
        self, *, num_classes: int, in_channels: int = 3, side: int = 32, hidden: Sequence[int] = (512, 512)
    ) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        widths = (in_channels * side * side, *hidden)
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers, nn.Linear(widths[-1], num_classes))
