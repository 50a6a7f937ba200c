"""A finished training, and what can be learnt from its folder; whatever takes long is kept there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from chase import checkpoint
from chase.benchmarks.compare import bench
from chase.benchmarks.paper.table import Inapplicable
from chase.benchmarks.prunability import Images, prunability
from chase.benchmarks.report import Report, Row
from chase.checkpoint import load_network
from chase.data import data_for
from chase.files import write_json
from chase.recipe import Recipe
from chase.run import Run
from chase.training import resolve_device
from chase.twin import write_dense


@dataclass(frozen=True)
class Trained:
    """The folder of a finished training, its recipe, and for how many seconds an artifact is timed."""

    run: Run
    recipe: Recipe
    device: str
    seconds: float

    @cached_property
    def masked(self) -> dict[str, Any]:
        """The facts of the masked network."""
        return dict(checkpoint.read(self.run.checkpoint)["facts"])

    @cached_property
    def slim(self) -> dict[str, Any] | None:
        """The content of slim.pt; None where no channel has left."""
        return checkpoint.read(self.run.slim) if self.masked["channel_sparsity"] else None

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The facts of the network that would be shipped: the slim one, or the masked one where no channel has left."""
        return self.masked | (self.slim["facts"] if self.slim else {})

    @cached_property
    def epochs(self) -> list[dict[str, Any]]:
        """What each epoch recorded."""
        return [json.loads(line) for line in self.run.metrics.read_text().splitlines()]

    def weight(self, layer: str) -> torch.Tensor:
        """The weight of a layer in the network that would be shipped.

        Raises:
            Inapplicable: if the model has no such layer.
        """
        state = (self.slim or checkpoint.read(self.run.checkpoint))["state_dict"]
        if f"{layer}.weight" not in state:
            raise Inapplicable(f"{self.recipe.model.name} has no such layer")
        found: torch.Tensor = state[f"{layer}.weight"]
        return found

    @cached_property
    def prunability(self) -> dict[str, Any]:
        """Accuracies of the masked network after one-shot pruning by every criterion (see `benchmarks.prunability`)."""
        file, source = self.run.folder / "prunability.json", self.run.checkpoint
        if not self.run.is_current(file):
            data = data_for(self.recipe.data)
            images = Images.of(self.recipe, data.train, data.test)
            found = prunability(load_network(source), images, device=resolve_device(self.device))
            write_json(file, found.to_dict())
            self.run.record(file, parents=[source])
        content: dict[str, Any] = json.loads(file.read_text())
        return content

    def speed(self, batch_size: int) -> Row:
        """The network that would be shipped, timed by eager PyTorch in turn with its dense one where channels left."""
        file = self.run.folder / f"bench-{batch_size}.json"
        how = {"batch_size": batch_size, "budget_s": self.seconds, "device": self.device}
        source = self.run.slim if self.slim else self.run.checkpoint
        if not self.run.is_current(file, **how):
            items = [write_dense(self.run), source] if self.slim else [source]
            given: dict[str, Any] = {"device": resolve_device(self.device), "budget_s": self.seconds}
            bench(items, batch_sizes=(batch_size,), runtimes=("eager",), **given).save(file)
            self.run.record(file, parents=[source], **how)
        return Report.load(file).rows[-1]
