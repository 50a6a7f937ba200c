"""Knowledge distillation: a trained network's outputs as targets beside the labels (Hinton et al. 2015)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from chase.checkpoint import load_network
from chase.errors import RecipeError


class Distillation(nn.Module):
    """(1 − α) · the loss by labels + α · T² · KL(teacher / T ‖ student / T), of logits [b, classes].

    The teacher sees the same images, in evaluation mode, and is not trained. T² keeps the size of gradients.
    """

    def __init__(self, teacher: nn.Module, *, alpha: float, temperature: float) -> None:
        super().__init__()
        self.teacher = teacher.eval().requires_grad_(False)
        self.alpha, self.temperature = alpha, temperature

    def forward(self, by_labels: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """The loss, given that by labels, the student's logits, and the images [b, ...] that made them."""
        with torch.no_grad():
            wanted = torch.log_softmax(self.teacher(images).float() / self.temperature, 1)
        found = torch.log_softmax(logits.float() / self.temperature, 1)
        divergence = nn.functional.kl_div(found, wanted, reduction="batchmean", log_target=True)
        return (1 - self.alpha) * by_labels + self.alpha * self.temperature**2 * divergence


def teacher_from(path: Path | str, *, classes: tuple[str, ...], shape: tuple[int, ...]) -> nn.Module:
    """The network of a checkpoint, if it answers the same question.

    Raises:
        CheckpointError: if it cannot be read.
        RecipeError: if it was trained on inputs of another shape or on other classes.
    """
    network = load_network(path)
    if network.input.shape != shape or network.input.classes != classes:
        raise RecipeError(
            f"training.teacher {path} takes {list(network.input.shape)} and knows {len(network.input.classes)} "
            f"classes; this training has {list(shape)} and {len(classes)} classes: train a teacher on the same data"
        )
    return network.model
