"""Widths of layers before and after, and whether they lie on the grid that fast kernels want."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chase.benchmarks.layers import ALIGNMENT
from chase.benchmarks.page.tables import Table, plain


@dataclass(frozen=True)
class Width:
    """The channels of one layer in the dense and in the slim network."""

    layer: str
    dense: int
    slim: int

    @property
    def aligned(self) -> bool:
        """Whether slimming left a multiple of ALIGNMENT, or the layer as it was."""
        return self.slim % ALIGNMENT == 0 or self.slim == self.dense


def widths_of(network: Mapping[str, Any]) -> list[Width]:
    """The widths that the facts of a slim network name; none where they do not."""
    widths = (network.get("facts") or {}).get("widths") or {}
    return [Width(layer, dense, slim) for layer, (dense, slim) in widths.items()]


def width_table(widths: Sequence[Width]) -> Table | None:
    """The widths as a table."""
    rows = [(w.layer, w.dense, w.slim, 100 * w.slim / w.dense, "yes" if w.aligned else "no") for w in widths]
    headings = ("layer", "dense", "slim", "kept (%)", f"multiple of {ALIGNMENT}")
    return plain("All widths", headings, rows) if rows else None
