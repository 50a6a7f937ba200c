"""Amenable channels of three epochs and a prunability table, made by hand: no number in them was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chase.benchmarks.analysis import Analysis, History
from chase.benchmarks.prunability import Prunability, Pruned
from chase.run import Run

SHARES = {"stem": [0.5, 0.75, 0.875], "block.conv1": [0.25, 0.375, 0.5], "block.conv2": [0.0, 0.0, 0.125]}
EPOCHS = (1, 2, 3)
FALL = {"0": 1.0, "0.2": 1.0, "0.4": 0.5}  # what remains of the shares at a threshold


def history() -> History:
    """Two metrics, three thresholds, three layers, three epochs; "ws" has half of what "umm" has."""
    shares = {
        metric: {v: {layer: [scale * fall * s for s in of] for layer, of in SHARES.items()} for v, fall in FALL.items()}
        for metric, scale in (("umm", 1.0), ("ws", 0.5))
    }
    return History(epochs=EPOCHS, shares=shares)


def write_metrics(run: Run) -> Run:
    """The same as a training writes it."""
    lines: list[dict[str, Any]] = []
    for place, epoch in enumerate(EPOCHS):
        amenable = {
            metric: {v: {layer: shares[place] for layer, shares in layers.items()} for v, layers in of.items()}
            for metric, of in history().shares.items()
        }
        lines.append({"epoch": epoch, "step": 10 * epoch, "amenable": amenable})
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def pruned(criterion: str, share: float, *accuracies: float) -> Pruned:
    return Pruned(criterion=criterion, share=share, channel_sparsity=share, accuracies=accuracies)


def small_prunability(**changes: Any) -> Prunability:
    """Two criteria at two shares; random pruning in three draws."""
    rows = (
        *(pruned("umm", 0.1, 90.25), pruned("umm", 0.3, 80.5)),
        *(pruned("random", 0.1, 50.0, 60.0, 70.0), pruned("random", 0.3, 10.0, 20.0, 30.0)),
    )
    facts: dict[str, Any] = {"split": "validation", "images": 500, "channels": 64, "unpruned": 91.125, "rows": rows}
    return Prunability(**(facts | changes))


def small_analysis(**changes: Any) -> Analysis:
    facts: dict[str, Any] = {"name": "mine", "folder": Path("mine"), "model": "vgg8", "history": history()}
    return Analysis(**(facts | {"threshold": "0.2", "prunability": small_prunability()} | changes))
