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

METHODS: dict[str, tuple[str, ...]] = {
    "chase-0.5": (),
    "rigl": ("method={name: rigl, sparsity: 0.9}",),
    "chase-0": ("method.channel_sparsity=0",),
    "dense": ("method={name: dense}",),
}
"""The rows of Table 3, as changes of the recipe of its S_c = 0.5 row."""


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
        from chase.checkpoint import read
        from chase.recipe import Recipe, override
        from chase.recipe import read as read_recipe
        from chase.run import Run
        from chase.training import Epoch, Watch, train

        recipe = Recipe.from_dict(override(read_recipe(self.recipe), [*METHODS[self.method], *self.assignments]))
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
        row = {name: facts[name] for name in names}
        speed = statistics.median(speeds)
        yield [{"method": self.method, "recipe": recipe.to_dict(), "images_per_second": speed, **row}]
        shutil.rmtree(run.folder)
