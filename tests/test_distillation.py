"""Knowledge distillation: the loss by hand, and a teacher that fits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from chase import checkpoint
from chase.checkpoint import InputSpec
from chase.distillation import Distillation, teacher_from
from chase.errors import CheckpointError, RecipeError
from chase.models import build

LABELS = torch.tensor(2.0)


def test_the_loss_by_hand() -> None:
    teacher = nn.Linear(1, 2)
    with torch.no_grad():
        teacher.weight.copy_(torch.tensor([[4.0], [0.0]]))
        teacher.bias.zero_()
    distillation = Distillation(teacher, alpha=0.25, temperature=2.0)
    logits = torch.tensor([[0.0, 0.0]], requires_grad=True)

    loss = distillation(LABELS, logits, torch.tensor([[1.0]]))

    p = 1 / (1 + math.exp(-2))  # the teacher's logits 4, 0 at temperature 2
    divergence = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    assert loss.item() == pytest.approx(0.75 * 2 + 0.25 * 4 * divergence, rel=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([0.25 * 2 * (0.5 - p), 0.25 * 2 * (p - 0.5)], rel=1e-5)
    assert teacher.weight.grad is None


def test_a_student_that_agrees_has_the_loss_by_labels_alone() -> None:
    teacher, images = nn.Linear(3, 5), torch.randn(4, 3)

    assert Distillation(teacher, alpha=0.5, temperature=4.0)(LABELS, teacher(images), images).item() == pytest.approx(1)


def test_the_teacher_is_neither_trained_nor_in_training_mode() -> None:
    teacher = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    distillation = Distillation(teacher, alpha=1.0, temperature=1.0)

    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in distillation.parameters())


def test_a_teacher_must_know_the_same_classes(tmp_path: Path) -> None:
    spec = InputSpec(shape=(1, 8, 8), classes=("a", "b"))
    model = build("mlp", num_classes=2, in_channels=1, side=8)
    path = tmp_path / "teacher.pt"
    checkpoint.save(
        path,
        kind="dense",
        model={"name": "mlp", "settings": {"num_classes": 2, "in_channels": 1, "side": 8}},
        network=model,
        input=spec,
        widths=None,
        masks=None,
        recipe=None,
        facts={},
        samples=None,
    )

    assert isinstance(teacher_from(path, classes=("a", "b"), shape=(1, 8, 8)), nn.Module)
    with pytest.raises(RecipeError, match=r"takes \[1, 8, 8\] and knows 2 classes; this training has .* 3 classes"):
        teacher_from(path, classes=("a", "b", "c"), shape=(1, 8, 8))
    with pytest.raises(CheckpointError, match="no such file"):
        teacher_from(tmp_path / "none.pt", classes=("a",), shape=(1, 8, 8))
