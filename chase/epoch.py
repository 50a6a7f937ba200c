"""What a training tells of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """What one epoch did.

    Accuracies are top-1 in percent; `macs` has the three columns per image, `executed_macs` are those that a forward
    pass still makes (channels that are masked but not cut out count), `amenable` the shares of sparse amenable
    channels, {metric: {v: {layer: share}}}, and `group_sparsity` the removed share of each prunable group's channels.
    """

    epoch: int
    step: int
    lr: float
    loss: float
    validation_accuracy: float | None
    sparsity: float
    channel_sparsity: float
    macs: dict[str, int]
    events: list[dict[str, Any]]
    images_per_second: float
    amenable: dict[str, Any] = field(default_factory=dict)
    group_sparsity: dict[str, float] = field(default_factory=dict)
    executed_macs: int = 0


@dataclass(frozen=True)
class Watch:
    """What a caller wants to see while a training runs: after each step (done, all), and after each epoch."""

    on_step: Callable[[int, int], None] = lambda done, steps: None
    on_epoch: Callable[[Epoch], None] = lambda epoch: None
