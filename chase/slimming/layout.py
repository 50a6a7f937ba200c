"""Where the boxes and edges of a layered drawing go: rows, columns, and lanes that pass between boxes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

COLUMNS = 7  # boxes in a row, at most
BETWEEN = 4  # steps between two columns: room for lanes

Edge = tuple[int, int]
"""The numbers of two boxes, from and to. Boxes are numbered in execution order."""


@dataclass(frozen=True)
class Layout:
    """A drawing on a grid: the row of each box, its middle in steps (0 = the first column), and the lane, in steps,
    of each edge that passes rows between its ends."""

    rows: list[int]
    centres: list[int]
    lanes: dict[Edge, int]

    def drop(self, edge: Edge) -> int:
        """How many rows an edge goes down."""
        return self.rows[edge[1]] - self.rows[edge[0]]


def lay_out(count: int, edges: Sequence[Edge], width: int) -> Layout:
    """The layout of `count` boxes, each `width` steps wide (odd)."""
    rows = rows_of(count, edges)
    centres = [column * (width + BETWEEN) for column in _columns(rows, edges)]
    layout = Layout(rows, centres, {})
    layout.lanes.update(_lanes(layout, edges, width))
    return layout


def rows_of(count: int, edges: Sequence[Edge]) -> list[int]:
    """The row of every box: below all earlier boxes that feed it, as high as a row has room.

    A box that nothing feeds comes below the box before it.
    """
    parents = _parents(edges)
    rows: list[int] = []
    filled: dict[int, int] = defaultdict(int)
    for box in range(count):
        row = 1 + max((rows[parent] for parent in parents[box] or range(box)[-1:]), default=-1)
        while filled[row] == COLUMNS:
            row += 1
        filled[row] += 1
        rows.append(row)
    return rows


def _parents(edges: Sequence[Edge]) -> dict[int, list[int]]:
    parents = defaultdict(list)
    for a, b in sorted(edges):
        if a < b:
            parents[b].append(a)
    return parents


def _columns(rows: Sequence[int], edges: Sequence[Edge]) -> list[int]:
    """The column of every box: as near as may be to the column of the last box that feeds it."""
    parents = _parents(edges)
    columns = [COLUMNS // 2] * len(rows)
    members: dict[int, list[int]] = defaultdict(list)
    for box, row in enumerate(rows):
        members[row].append(box)
    for row in sorted(members):
        wishes = sorted((columns[(parents[box] or [max(box - 1, 0)])[-1]], box) for box in members[row])
        choice = min(combinations(range(COLUMNS), len(wishes)), key=lambda some: _strain(some, wishes))
        for column, (_, box) in zip(choice, wishes, strict=True):
            columns[box] = column
    return columns


def _strain(columns: Sequence[int], wishes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    away = sum(abs(column - wish) for column, (wish, _) in zip(columns, wishes, strict=True))
    return away, sum(abs(column - COLUMNS // 2) for column in columns)


def _lanes(layout: Layout, edges: Sequence[Edge], width: int) -> dict[Edge, int]:
    """A lane for each edge over more than one row: one for all that a box feeds, one for all that go up to a box."""
    taken: dict[int, set[int]] = defaultdict(set)
    for row, centre in zip(layout.rows, layout.centres, strict=True):
        taken[row].update(range(centre - width // 2 - 1, centre + width // 2 + 2))
    bundles: dict[tuple[int, int], list[Edge]] = defaultdict(list)
    for edge in edges:
        if abs(layout.drop(edge)) > 1:
            bundles[(edge[0], 1) if layout.drop(edge) > 0 else (edge[1], -1)].append(edge)
    lanes: dict[Edge, int] = {}
    for (box, side), bundle in bundles.items():
        ends = [layout.rows[end] for edge in bundle for end in edge]
        passed = range(min(ends) + 1, max(ends))
        lane = _free([taken[row] for row in passed], layout.centres[box], side)
        lanes.update(dict.fromkeys(bundle, lane))
        for row in passed:
            taken[row].add(lane)
    return lanes


def _free(taken: Sequence[set[int]], wish: int, side: int) -> int:
    """The step nearest to `wish` that is free in every row; `side` (1 or -1) says where to look first."""
    away = 0
    while True:
        for lane in (wish + side * away, wish - side * away):
            if not any(lane in row for row in taken):
                return lane
        away += 1
