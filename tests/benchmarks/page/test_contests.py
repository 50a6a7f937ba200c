"""Who wins between the slim network and others."""

from __future__ import annotations

from typing import Any

import pytest
from small_reports import dense_row, other_row, samples, slim_row, small_report

from chase.benchmarks.page.contests import contests
from chase.benchmarks.page.roles import Role, Roles
from chase.benchmarks.report import Row

WINS = "torchvision:small is faster and no less accurate than slim model.onnx at batch "
LOSES = "slim model.onnx is faster and no less accurate than torchvision:small at batch "
UNKNOWN = "torchvision:small is faster than slim model.onnx at batch size 1, with an accuracy that is not known."


def notes(*rows: Row) -> list[tuple[str, str]]:
    return [(note.kind, note.text) for note in contests(small_report(rows))]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"accuracy": 95.0, "samples_ms": samples(0.9)}, [("bad", WINS + "size 1.")]),
        ({"accuracy": 85.0, "samples_ms": samples(1.5)}, [("good", LOSES + "size 1.")]),
        ({"accuracy": 85.0, "samples_ms": samples(0.9)}, []),
        ({"accuracy": 95.0, "samples_ms": samples(1.5)}, []),
        ({"accuracy": None, "samples_ms": samples(0.9)}, [("plain", UNKNOWN)]),
        ({"accuracy": None, "samples_ms": samples(1.5)}, []),
        ({"runtime": "openvino"}, []),
    ],
)
def test_a_winner_is_faster_and_no_less_accurate(changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert notes(dense_row(), slim_row(), other_row(**changes)) == expected


def test_batch_sizes_with_the_same_winner_share_a_sentence() -> None:
    rows = [make(batch_size=size) for size in (1, 8, 32) for make in (dense_row, slim_row, other_row)]

    assert notes(*rows) == [("good", LOSES + "sizes 1, 8 and 32.")]


def test_a_rival_is_neither_slim_nor_dense_whatever_its_name_and_macs() -> None:
    rival = slim_row(artifact="slim self@160", settings={"rival": True})
    report = small_report([dense_row(), slim_row(), rival])

    assert [Roles.of(report)(row) for row in report.rows] == [Role.DENSE, Role.SLIM, Role.OTHER]
