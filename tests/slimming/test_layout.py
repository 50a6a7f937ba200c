"""The layout of a layered drawing: rows follow the edges, and lanes pass between boxes."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from chase.slimming.layout import COLUMNS, Edge, Layout, lay_out, rows_of

WIDTH = 5


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, list[Edge]]:
    count = draw(st.integers(1, 24))
    box = st.integers(0, count - 1)
    return count, sorted(draw(st.sets(st.tuples(box, box), max_size=40)))


def passed(layout: Layout, edge: Edge) -> range:
    """The rows that an edge crosses between its ends."""
    low, high = sorted((layout.rows[edge[0]], layout.rows[edge[1]]))
    return range(low + 1, high)


def test_a_box_lies_below_all_that_feed_it_and_as_high_as_they_let_it() -> None:
    assert rows_of(4, [(0, 1), (1, 2), (2, 3)]) == [0, 1, 2, 3]
    assert rows_of(4, [(0, 1), (0, 2), (1, 3), (2, 3)]) == [0, 1, 1, 2]
    assert rows_of(4, [(0, 1), (1, 2), (0, 3)]) == [0, 1, 2, 1]


def test_an_edge_back_to_an_earlier_box_moves_nothing() -> None:
    assert rows_of(3, [(0, 1), (1, 2), (2, 0), (1, 1)]) == [0, 1, 2]


def test_a_box_that_nothing_feeds_comes_below_the_one_before_it() -> None:
    assert rows_of(3, [(1, 2)]) == [0, 1, 2]


def test_a_full_row_overflows_into_the_next_and_keeps_the_order() -> None:
    many = COLUMNS + 2

    layout = lay_out(1 + many, [(0, box) for box in range(1, 1 + many)], WIDTH)

    assert layout.rows == [0] + [1] * COLUMNS + [2] * 2
    assert layout.centres[1 : 1 + COLUMNS] == sorted(set(layout.centres[1 : 1 + COLUMNS]))


def test_a_chain_is_a_straight_line_without_lanes() -> None:
    layout = lay_out(4, [(0, 1), (1, 2), (2, 3)], WIDTH)

    assert len(set(layout.centres)) == 1
    assert layout.lanes == {}


def test_all_that_a_box_feeds_shares_one_lane() -> None:
    layout = lay_out(5, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 2), (0, 3), (1, 4)], WIDTH)

    assert layout.lanes.keys() == {(0, 2), (0, 3), (1, 4)}
    assert layout.lanes[0, 2] == layout.lanes[0, 3] != layout.lanes[1, 4]


@given(graphs())
def test_boxes_do_not_overlap_and_edges_to_later_boxes_go_down(graph: tuple[int, list[Edge]]) -> None:
    layout = lay_out(*graph, WIDTH)

    for one, other in combinations(range(graph[0]), 2):
        same = layout.rows[one] == layout.rows[other]
        assert not same or abs(layout.centres[one] - layout.centres[other]) > WIDTH
    assert all(layout.drop(edge) > 0 for edge in graph[1] if edge[0] < edge[1])


@given(graphs())
def test_lanes_run_into_no_box_and_into_no_other_lane(graph: tuple[int, list[Edge]]) -> None:
    layout = lay_out(*graph, WIDTH)

    assert layout.lanes.keys() == {edge for edge in graph[1] if len(passed(layout, edge))}
    for edge, lane in layout.lanes.items():
        for box in range(graph[0]):
            free = abs(layout.centres[box] - lane) > WIDTH // 2
            assert free or layout.rows[box] not in passed(layout, edge)
    for (one, at), (other, there) in combinations(layout.lanes.items(), 2):
        meet = set(passed(layout, one)) & set(passed(layout, other))
        assert at != there or not meet or one[0] == other[0] or one[1] == other[1]
