"""What a training needs beside its network and its data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from chase.checkpoint import InputSpec
from chase.data import Data, Split, class_balanced
from chase.distillation import Distillation, teacher_from
from chase.errors import RecipeError
from chase.recipe import Recipe
from chase.settings import TrainingSettings
from chase.sparse.method import RANDOM
from chase.sparse.saliency import Batch


def labelled(recipe: Recipe, split: Split, device: torch.device) -> Batch | None:
    """Ten training images of each class, which initial masks by saliency are measured on."""
    if recipe.method.initial == RANDOM:
        return None
    return Batch(*class_balanced(split, seed=recipe.training.seed, device=device))


def distillation(settings: TrainingSettings, input: InputSpec, device: torch.device) -> Distillation | None:
    """The loss by the teacher, if there is one."""
    if settings.teacher is None:
        return None
    teacher = teacher_from(settings.teacher, classes=input.classes, shape=input.shape)
    return Distillation(teacher, alpha=settings.distillation, temperature=settings.temperature).to(device)


def samples(data: Data) -> Tensor:
    """A few real inputs that travel with the network, so that later stages can prove themselves on them."""
    few = 16 if max(data.input_shape[1:]) <= 64 else 4
    images, _ = next(data.test.subset(torch.arange(min(few, len(data.test)))).batches(few))
    return images


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """The same network with BatchNorm's statistics over all processes.

    Raises:
        RecipeError: on CPUs, where torch has no such norm.
    """
    if device.type != "cuda":
        raise RecipeError(f"training.sync_batchnorm needs GPUs, and this trains on {device.type}; leave it out")
    changed: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return changed
