"""Analysis of a run: sparse amenable channels over its training, and what its network bears to lose (paper §2.2)."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chase.benchmarks.page.facts import read_epochs
from chase.benchmarks.prunability import Prunability
from chase.errors import CheckpointError, RecipeError, UnknownName
from chase.recipe import read
from chase.registry import did_you_mean
from chase.run import Run

THRESHOLD = 0.2  # shown first where it is on record, as in the paper's Table 14
COLUMNS = 10  # epochs of a table
Layers = Mapping[str, Sequence[float]]
"""For each layer, its share of amenable channels in each epoch."""


@dataclass(frozen=True, kw_only=True)
class History:
    """Shares of sparse amenable channels, by metric, by threshold as it was written down, and by layer, one for each of
    `epochs`; empty where nothing was recorded, as of a dense training."""

    epochs: tuple[int, ...] = ()
    shares: Mapping[str, Mapping[str, Layers]] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> History:
        """What the metrics of a run hold.

        Raises:
            CheckpointError: if there are none, or they are damaged.
        """
        if not run.metrics.is_file():
            raise CheckpointError(f"{run.folder} has no {run.metrics.name}; make it with `chase train`")
        lines = [line for line in read_epochs(run.metrics) if line.get("amenable")]
        first = lines[0]["amenable"] if lines else {}
        try:
            shares = {
                metric: {
                    v: {layer: [line["amenable"][metric][v][layer] for line in lines] for layer in layers}
                    for v, layers in thresholds.items()
                }
                for metric, thresholds in first.items()
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{run.metrics}: its epochs hold different amenable channels ({error!r}); train again"
            ) from error
        return cls(epochs=tuple(line["epoch"] for line in lines), shares=shares)

    def threshold(self, metric: str, v: float | None = None) -> str:
        """The recorded threshold `v` of a metric as it was written down (default: THRESHOLD, else the first).

        Raises:
            UnknownName: if there is no such metric.
            RecipeError: if it was not recorded.
        """
        if metric not in self.shares:
            raise UnknownName(f"no amenable metric named {metric!r}; {did_you_mean(metric, self.shares)}")
        known = list(self.shares[metric])
        if v is None:
            return next((name for name in known if float(name) == THRESHOLD), known[0])
        for name in known:
            if math.isclose(float(name), v):
                return name
        raise RecipeError(
            f"no shares were recorded at the threshold {v:g}, only at {', '.join(known)}; "
            f"train with -o training.amenable_thresholds=[{v:g}] for it"
        )

    def layers(self, metric: str, threshold: str, pattern: str = "*") -> Layers:
        """The shares of the layers whose names fit a pattern.

        Raises:
            RecipeError: if there are none.
        """
        every = self.shares[metric][threshold]
        found = {layer: shares for layer, shares in every.items() if fnmatch.fnmatchcase(layer, pattern)}
        if not found:
            raise RecipeError(f"no layer fits {pattern!r}; {did_you_mean(pattern, every)}")
        return found


def mean(layers: Layers, epoch: int = -1) -> float:
    """The mean share over layers, in the epoch at a position (default: the last)."""
    return sum(shares[epoch] for shares in layers.values()) / len(layers)


def history_table(
    history: History, metric: str, threshold: str, pattern: str = "*"
) -> tuple[tuple[str, ...], list[tuple[str | float, ...]]]:
    """The headings and the rows of the paper's Table 14: layers against epochs, COLUMNS of them at most.

    Raises:
        RecipeError: if no layer fits the pattern.
    """
    shown = spread_out(len(history.epochs), COLUMNS)
    headings = ("layer", *(f"epoch {history.epochs[place]}" for place in shown))
    layers = history.layers(metric, threshold, pattern)
    return headings, [(name, *(shares[place] for place in shown)) for name, shares in layers.items()]


def spread_out(count: int, most: int) -> list[int]:
    """Up to `most` positions out of `count`, evenly spread, with the first and the last."""
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What is found out about one run. `metric` and `threshold` are what its page speaks of first (None: there is
    nothing on record)."""

    name: str
    folder: Path
    model: str
    about: str = ""
    history: History
    metric: str = "umm"
    threshold: str | None = None
    prunability: Prunability | None = None

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "run": self.name,
            "model": self.model,
            "epochs": list(self.history.epochs),
            "amenable": {
                metric: {v: {layer: list(shares) for layer, shares in layers.items()} for v, layers in of.items()}
                for metric, of in self.history.shares.items()
            },
            "prunability": self.prunability and self.prunability.to_dict(),
        }


def analysis_of(
    run: Run,
    history: History,
    *,
    metric: str = "umm",
    threshold: str | None = None,
    prunability: Prunability | None = None,
) -> Analysis:
    """The analysis of a run, with its model and what its recipe says of itself.

    Raises:
        RecipeError: if the run has no recipe.
    """
    recipe = read(str(run.recipe))
    return Analysis(
        name=run.folder.resolve().name,
        folder=run.folder,
        model=recipe["model"]["name"],
        about=recipe.get("about") or "",
        history=history,
        metric=metric,
        threshold=threshold,
        prunability=prunability,
    )
