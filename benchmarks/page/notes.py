"""Notes: what the page says in sentences, and how these name rows and batch sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chase.benchmarks.page.roles import batch_sizes, key, short_names
from chase.benchmarks.report import Report, Row

NAMED = 3  # artifacts that a sentence names; the tables hold the others


@dataclass(frozen=True)
class Note:
    """A sentence, and whether it speaks for the result, against it, or neither: "good", "bad", "plain"."""

    text: str
    kind: str = "plain"


def batches(rows: Iterable[Row]) -> str:
    """As in: batch sizes 1, 2 and 32."""
    sizes = [str(size) for size in batch_sizes(rows)]
    if len(sizes) == 1:
        return f"batch size {sizes[0]}"
    return f"batch sizes {', '.join(sizes[:-1])} and {sizes[-1]}"


def listed(report: Report, rows: Sequence[Row]) -> str:
    """The short names of some rows; of many, the first few."""
    short = short_names(report)
    names = list(dict.fromkeys(short[key(row)] for row in rows))
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
