"""Preprocessing inside the file: images as a camera gives them go in, probabilities come out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Preprocessed(nn.Module):
    """A network with its preprocessing: uint8 images [b, h, w, c] to probabilities [b, classes]."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(list(mean) or [0.0])[:, None, None])
        self.register_buffer("std", torch.tensor(list(std) or [1.0])[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities [b, classes] of images [b, h, w, c], uint8."""
        x = images.float().permute(0, 3, 1, 2) / 255  # TensorRT transposes no bytes
        logits: Tensor = self.network((x - self.mean) / self.std)
        return logits.softmax(1)
