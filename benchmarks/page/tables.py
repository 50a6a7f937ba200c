"""Tables: the numbers of a report, one declaration for the page, Markdown and CSV."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chase.benchmarks.report import Report, Row

NOTHING = "–"
DIGITS = 3
TINY = 1e-3  # smaller numbers are written as powers of ten


@dataclass(frozen=True)
class Column:
    """A column: its heading, the field of a row of bench.json that it shows (dotted), and how.

    `scale` divides the number (1e6 for millions); `places` are its decimals. Without them, columns of one unit show
    DIGITS significant digits of their smallest number. A `common` column stands in the note where it is the same for
    all rows.
    """

    heading: str
    field: str
    unit: str = ""
    scale: float = 1.0
    places: int | None = None
    common: bool = False

    @property
    def title(self) -> str:
        """The heading with its unit."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading


@dataclass(frozen=True)
class Cell:
    """What a cell says, and the value in bench.json that it was made from."""

    text: str
    value: Any


@dataclass(frozen=True)
class Table:
    """A heading, the columns and the rows of cells."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def numeric(self, position: int) -> bool:
        """Whether a column holds numbers alone, and stands to the right."""
        values = [row[position].value for row in self.rows if row[position].value is not None]
        return all(isinstance(value, (int, float)) for value in values)


WHO = (
    Column("artifact", "artifact"),
    Column("runtime", "runtime"),
    Column("precision", "precision", common=True),
)
SPEED = (
    *WHO,
    Column("batch", "batch_size"),
    Column("p50", "latency_ms.p50", "ms"),
    Column("p90", "latency_ms.p90", "ms"),
    Column("p99", "latency_ms.p99", "ms"),
    Column("mean", "latency_ms.mean", "ms"),
    Column("variation", "latency_ms.cv", places=2),
    Column("calls", "latency_ms.samples"),
    Column("first call", "first_call_ms", "ms"),
    Column("CPU time", "cpu_p50", "ms"),
    Column("GPU time", "gpu_p50", "ms"),
    Column("enqueue", "enqueue_p50", "ms"),
    Column("to device", "transfer_ms.to_device", "ms"),
    Column("from device", "transfer_ms.from_device", "ms"),
    Column("throughput", "throughput", "images/s"),
    Column("peak memory", "peak_memory_bytes", "MB", 1e6),
    Column("provider", "provider", common=True),
)
GAIN = (
    *WHO,
    Column("batch", "batch_size"),
    Column("speed-up", "speedup_vs_dense.median", "×", places=2),
    Column("95 % from", "speedup_vs_dense.ci95.0", "×", places=2),
    Column("to", "speedup_vs_dense.ci95.1", "×", places=2),
    Column("verdict", "speedup_vs_dense.verdict"),
    Column("clock", "speedup_vs_dense.clock", common=True),
    Column("MACs promise", "speedup_vs_dense.mac_ratio", "×", places=2),
    Column("efficiency", "efficiency", places=2),
    Column("against", "speedup_vs_dense.baseline"),
)
QUALITY = (
    *WHO,
    Column("top-1", "accuracy", "%", places=2),
    Column("top-5", "top5", "%", places=2),
    Column("fp32 top-1", "reference_accuracy", "%", places=2),
    Column("agreement", "agreement", "%", places=2),
    Column("flipped", "flipped", "images"),
    Column("worst logit error", "worst_logit_error"),
    Column("why not", "accuracy_reason"),
)
COST = (
    Column("artifact", "artifact"),
    Column("precision", "precision", common=True),
    Column("theoretical", "macs.theoretical", "M MACs", 1e6),
    Column("GPU-supported", "macs.gpu_supported", "M MACs", 1e6),
    Column("dense", "macs.dense", "M MACs", 1e6),
    Column("MAC ratio", "mac_ratio", "×", places=2),
    Column("nonzero", "params.nonzero", "M params", 1e6),
    Column("stored", "params.stored", "M params", 1e6),
    Column("dense", "params.dense", "M params", 1e6),
    Column("file", "size_bytes", "MB", 1e6),
    Column("compressed", "compressed_bytes", "MB", 1e6),
)


def tables(report: Report) -> dict[str, Table]:
    """The tables of a report by name: gain, speed, quality, cost; columns without a value are left out."""
    gained = [row for row in report.rows if row.speedup_vs_dense]
    quality, cost = _once(report.rows, "artifact", "runtime", "precision"), _once(report.rows, "artifact", "precision")
    found = {
        "gain": _table(
            "Speed-up over the dense network", GAIN, gained, "Medians of paired ratios, with their interval."
        ),
        "speed": _table("Latency and throughput", SPEED, report.rows, "Latency of one call, whatever its batch size."),
        "quality": _table("Accuracy and agreement", QUALITY, quality, "On the test images, through the runtime named."),
        "cost": _table("MACs per image, parameters, size", COST, cost, "What a network costs before anything runs."),
    }
    return {name: table for name, table in found.items() if table.rows}


def _once(rows: Sequence[Row], *fields: str) -> list[Row]:
    """The first row of each kind."""
    first = {tuple(getattr(row, field) for field in fields): row for row in reversed(rows)}
    return list(first.values())[::-1]


def plain(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]], note: str = "", places: int | None = None
) -> Table:
    """A table of facts that do not come from rows of bench.json; `places` as in `Column`."""
    columns = tuple(Column(heading, "", places=places) for heading in headings)
    return Table(title, columns, _cells({c: [row[n] for row in rows] for n, c in enumerate(columns)}), note)


def _table(title: str, columns: Sequence[Column], rows: Sequence[Row], note: str) -> Table:
    """The table of some rows; what is the same in all of them, and no number, stands in the note."""
    facts = [facts_of(row) for row in rows]
    values = {column: [at(fact, column.field) for fact in facts] for column in columns}
    common = [column for column in columns if column.common and len(rows) > 1 and len(set(values[column])) == 1]
    shown = [c for c in columns if c not in common and any(value is not None for value in values[c])]
    said = "".join(f" {column.heading.capitalize()}: {values[column][0]}." for column in common)
    return Table(title, tuple(shown), _cells({column: values[column] for column in shown}), note + said)


def facts_of(row: Row) -> dict[str, Any]:
    """The row of bench.json, with the medians of its other clocks."""
    clocks = {"cpu_p50": row.cpu_ms, "gpu_p50": row.gpu_ms, "enqueue_p50": row.enqueue_ms}
    return row.to_dict() | {name: statistics.median(values) if values else None for name, values in clocks.items()}


def at(facts: Any, field: str) -> Any:
    """What stands at a dotted path, None where it ends early."""
    for name in field.split("."):
        if isinstance(facts, Mapping):
            facts = facts.get(name)
        elif isinstance(facts, Sequence) and name.isdigit():
            facts = facts[int(name)]
        else:
            return None
    return facts


def _cells(values: Mapping[Column, Sequence[Any]]) -> tuple[tuple[Cell, ...], ...]:
    """The rows of cells; numbers of a unit have the same decimals, so that they can be read downwards and across."""
    numbers: dict[tuple[str, float], list[float]] = {}
    for column, entries in values.items():
        if column.places is None:
            found = [entry / column.scale for entry in entries if isinstance(entry, (int, float))]
            numbers.setdefault((column.unit or column.heading, column.scale), []).extend(found)
    made = []
    for column, entries in values.items():
        form = (
            f",.{column.places}f"
            if column.places is not None
            else _form(numbers[column.unit or column.heading, column.scale])
        )
        if column.scale == 1 and all(isinstance(entry, int) for entry in entries if entry is not None):
            form = ",d"
        made.append([Cell(_text(entry, column.scale, form), entry) for entry in entries])
    return tuple(zip(*made, strict=True))


def _form(numbers: Sequence[float]) -> str:
    """The format that shows DIGITS digits of the smallest number: three decimals at most, else powers of ten."""
    smallest = min((float(f"{abs(number):.{DIGITS}g}") for number in numbers if number), default=1.0)
    if smallest < TINY:
        return f".{DIGITS - 1}e"
    return f",.{max(0, min(3, DIGITS - 1 - math.floor(math.log10(smallest))))}f"


def _text(value: Any, scale: float, form: str) -> str:
    if value is None:
        return NOTHING
    if not isinstance(value, (int, float)):
        return str(value)
    return format(value if form == ",d" else value / scale, form)
