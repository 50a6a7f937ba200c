"""Accuracy: rows of the paper's Table 3, trained by the library's own loop."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chase.benchmarks.campaign.runner import Job, Rows
from chase.runtimes.base import torch_settings

METHODS = {"chase-0.5": "Chase (S_c = 0.5)", "rigl": "RigL", "chase-0": "Chase (S_c = 0)", "dense": "Dense"}
"""The rows of Table 3 at 90 % sparsity, as they are called here and there."""


@dataclass(frozen=True)
class Training:
    """One row: a recipe with some settings changed. A piece is an epoch; with the row, the run's folder goes."""

    recipe: str
    method: str
    assignments: tuple[str, ...]
    device: str

    def settings(self) -> dict[str, Any]:
        """What decides the result."""
        return {"recipe": self.recipe, "method": self.method, "assignments": list(self.assignments)}

    def run(self, job: Job) -> Iterator[Rows]:
        """Train, or go on with what was begun, and give the row.

        Raises:
            DataError: if the data is not at hand.
            OutOfTime: after an epoch, if another one would not end in time.
        """
        from chase.benchmarks.paper.accuracy import training
        from chase.benchmarks.paper.blocks import shipped
        from chase.checkpoint import read
        from chase.recipe import Recipe, override
        from chase.run import Run
        from chase.training import Epoch, Watch, train

        row = training(shipped(self.recipe), METHODS[self.method], "90 %").recipe
        recipe = Recipe.from_dict(override(row.to_dict(), self.assignments))
        digest = hashlib.sha256(json.dumps(recipe.to_dict(), sort_keys=True).encode()).hexdigest()
        run = Run(job.folder / "runs" / f"{self.recipe}-{self.method}-{digest[:8]}")

        def on_epoch(epoch: Epoch) -> None:
            if epoch.epoch < recipe.training.epochs:
                job.check()

        with torch_settings():
            train(recipe, run, device=self.device, resume=run.checkpoint.is_file(), watch=Watch(on_epoch=on_epoch))
        facts = read(run.checkpoint)["facts"]
        speeds = [json.loads(line)["images_per_second"] for line in run.metrics.read_text().splitlines()]
        names = ("sparsity", "channel_sparsity", "test_accuracy", "macs", "training_macs", "params", "epochs")
        measured = {name: facts[name] for name in names} | {"images_per_second": statistics.median(speeds)}
        yield [{"method": self.method, "recipe": recipe.to_dict(), **measured}]
        shutil.rmtree(run.folder)
