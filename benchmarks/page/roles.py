"""Roles: which rows are the slim network, which are the dense one it is compared with, and which are others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from chase.benchmarks.report import Report, Row


class Role(str, Enum):
    """What a row is to the reader."""

    SLIM = "slim"
    DENSE = "dense"
    OTHER = "other"


@dataclass(frozen=True)
class Roles:
    """The roles of the rows of one report."""

    baselines: frozenset[str]

    @classmethod
    def of(cls, report: Report) -> Roles:
        """A baseline is what some row says it was compared with."""
        return cls(frozenset(row.speedup_vs_dense["baseline"] for row in report.rows if row.speedup_vs_dense))

    def __call__(self, row: Row) -> Role:
        """The role of a row: whether it is a rival, by the baselines, its label, and what was removed from it."""
        if row.settings.get("rival"):
            return Role.OTHER
        if row.artifact in self.baselines or row.artifact.startswith("dense "):
            return Role.DENSE
        return Role.SLIM if row.artifact.startswith("slim ") or removed(row) else Role.OTHER


def removed(row: Row) -> bool:
    """Whether a row's network executes fewer MACs, or stores less, than the dense one it came from."""
    fewer_macs = row.macs.get("gpu_supported", 0) < row.macs.get("dense", 0)
    return fewer_macs or row.params.get("stored", 0) < row.params.get("dense", 0)


def baseline_of(row: Row, report: Report) -> Row | None:
    """The row that a row was compared with."""
    wanted = row.speedup_vs_dense and row.speedup_vs_dense["baseline"]
    alike = [other for other in report.rows if other.artifact == wanted and other.batch_size == row.batch_size]
    same = [other for other in alike if (other.runtime, other.precision) == (row.runtime, row.precision)]
    return next(iter(same or alike), None)


def batch_sizes(rows: Iterable[Row]) -> list[int]:
    """The batch sizes, smallest first."""
    return sorted({row.batch_size for row in rows})


def settings(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The different (runtime, precision), in the order of the rows."""
    return list(dict.fromkeys((row.runtime, row.precision) for row in rows))


def key(row: Row) -> tuple[str, str, str]:
    """What a row is, whatever its batch size."""
    return row.artifact, row.runtime, row.precision


def title(row: Row) -> str:
    """The full name of a row, without its batch size."""
    return f"{row.artifact} on {row.runtime}" + ("" if row.precision == "fp32" else f" in {row.precision}")


def short_names(report: Report) -> dict[tuple[str, str, str], str]:
    """A short name by key: the artifact, and what tells rows of the same artifact apart."""
    keys = dict.fromkeys(key(row) for row in report.rows)
    runtimes = {artifact: {r for a, r, _ in keys if a == artifact} for artifact, _, _ in keys}
    precisions = {artifact: {p for a, _, p in keys if a == artifact} for artifact, _, _ in keys}
    return {
        (artifact, runtime, precision): artifact
        + f" · {runtime}" * (len(runtimes[artifact]) > 1)
        + f" · {precision}" * (len(precisions[artifact]) > 1)
        for artifact, runtime, precision in keys
    }
