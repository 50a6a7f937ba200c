"""`chase bench --compare`: other networks in the same run, exported as the run's own artifacts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chase.cli.console import Console

if TYPE_CHECKING:
    from chase.benchmarks import Report
    from chase.run import Run

UNTRAINED = "it is untrained, here for speed alone; the file of a trained network can be named with --compare"


@dataclass(frozen=True)
class Rivals:
    """What is measured beside a run's own: (label, file), and the labels of what is untrained."""

    items: tuple[tuple[str, Path], ...] = ()
    untrained: frozenset[str] = frozenset()

    @property
    def labels(self) -> frozenset[str]:
        """How the rows are called."""
        return frozenset(label for label, _ in self.items)


def made(console: Console, run: Run, names: Sequence[str], *, exported: list[Path], data: str | None) -> Rivals:
    """The rivals of a run: files as they are, what was built for it as .pt and as each file that it exported.

    Raises:
        As `chase.benchmarks.rivals.rival`, for all names before the first export; ExportError as `chase export`.
    """
    from chase.benchmarks.rivals import rival
    from chase.cli.bench import export_like

    items: list[tuple[str, Path]] = []
    untrained: set[str] = set()
    for each in [rival(run, name) for name in dict.fromkeys(names)]:
        mine = [(each.name, each.path)]
        if each.made:
            files = export_like(console, each.path, exported, data, prefix=f"{each.path.stem}.")
            mine += [(f"{each.name} {path.name}", file) for path, file in zip(exported, files, strict=True)]
        items += mine
        untrained |= set() if each.trained else {label for label, _ in mine}
    return Rivals(tuple(items), frozenset(untrained))


def named(names: Sequence[str], like: Path) -> Rivals:
    """The rivals of named artifacts, which must be files, too.

    Raises:
        RecipeError: if one is no file, or for other images or classes than `like`.
        CheckpointError: if one is missing or foreign.
    """
    from chase.benchmarks.rivals import from_file, is_file
    from chase.errors import RecipeError
    from chase.runtimes import load_source

    for name in names:
        if not is_file(name):
            raise RecipeError(f"--compare {name} needs a run to be built for; leave the artifacts out, or name a file")
    source = load_source(like) if names else None
    found = [from_file(name, source) for name in dict.fromkeys(names) if source is not None]
    untrained = frozenset(each.name for each in found if not each.trained)
    return Rivals(tuple((each.name, each.path) for each in found), untrained)


def without_accuracy(report: Report, labels: frozenset[str], reason: str) -> Report:
    """The report with no accuracy on the rows of untrained networks."""
    rows = tuple(
        replace(row, accuracy=None, top5=None, reference_accuracy=None, accuracy_reason=reason)
        if row.artifact in labels
        else row
        for row in report.rows
    )
    return replace(report, rows=rows)
