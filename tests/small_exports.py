"""Small networks and facts that the tests of exporters share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.exporters import Gate, Job, export

EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
FACTS: dict[str, Any] = {
    "classes": ("cat", "dog", "eel", "fox"),
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.2, 0.1),
    "parent_sha256": "ab" * 32,
    "widths_sha256": "cd" * 32,
    "macs": {"theoretical": 1, "gpu_supported": 2, "dense": 3},
}


def tiny() -> nn.Sequential:
    """Logits [b, 4] of [b, 3, 8, 8], with a BatchNorm that has seen data, so that folding it matters."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(5, 4))
    model(torch.randn(16, 3, 8, 8) * 2 + 1)
    return model


def images(count: int, shape: tuple[int, ...] = (3, 8, 8), seed: int = 2) -> Tensor:
    """Random normalised images [count, *shape], always the same."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def job_for(model: nn.Module, example: Tensor = EXAMPLE, **fields: Any) -> Job:
    """A job with a gate of 1e-5 and eight samples, unless `fields` say otherwise."""
    given: dict[str, Any] = {"samples": images(8, tuple(example.shape[1:])), "gate": Gate(max_rel=1e-5)}
    return Job(model=model.eval(), example=example[:1], **(given | fields))


def exported_here(model: nn.Module, path: Path, **arguments: Any) -> Artifact:
    """`export` with the check in this process: the fresh one has tests of its own, and takes seconds."""
    given: dict[str, Any] = {"example": EXAMPLE, "isolated": False}
    return export(model, path, **(given | arguments))
