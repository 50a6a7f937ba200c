"""Printed numbers: how they are read, and a few of them typed in a second time, from the paper."""

from __future__ import annotations

import pytest

from chase.benchmarks.paper import TABLES
from chase.benchmarks.paper.published import GARBLED, Published, grid, number

AGAIN: list[tuple[str, str, str, float, float | None]] = [
    ("table2", "Standard RigL", "20 %", 76.89, 0.43),
    ("table2", "network-slimming", "30 %", 66.57, 2.95),
    ("table2", "umm", "30 %", 71.77, 2.31),
    ("table2", "mmm", "20 %", 19.34, 14.88),
    ("table3", "VGG-19: Chase (S_c = 0.5)", "CIFAR-100 90 %", 73.43, 0.12),
    ("table3", "VGG-19: Deep-R", "CIFAR-10 98 %", 86.77, None),
    ("table3", "ResNet-50: Chase (S_c = 0)", "CIFAR-100 95 %", 78.14, 0.28),
    ("table3", "ResNet-50: Chase+GraSP (S_c = 0.5)", "CIFAR-100 98 %", 75.74, 0.24),
    ("table3", "ResNet-20: RigL", "CIFAR-100 98 %", 31.94, 1.52),
    ("table4", "SNFS", "80 % train FLOPs", 0.61, None),
    ("table4", "Chase (S_c = 0.4)", "90 % GPU FLOPs", 0.67, None),
    ("table4", "Chase 1.5× (S_c = 0)", "80 % accuracy", 76.67, None),
    ("table4", "MEST 1.5×", "90 % accuracy", 75.00, None),
    ("table5", "CIFAR-100, VGG-19: Chase (S_c = 0.5)", "throughput", 24981.77, None),
    ("table5", "ImageNet, ResNet-50: RigL", "latency", 35.79, None),
    ("table6", "ResNet-50: β = 0.2", "98 %", 76.68, 0.27),
    ("table7", "VGG-19: SET+GACP (S_c = 0.5)", "CIFAR-10 95 %", 93.56, 0.05),
    ("table8", "VGG-19: ΔT = 16000", "90 %", 72.88, 0.24),
    ("table8", "ResNet-50: ΔT = 1000", "95 %", 77.48, 0.62),
    ("table12", "80 %, Chase prune skip (S_c = 0.7)", "accuracy", 67.53, None),
    ("table12", "90 %, Chase (S_c = 0.2)", "throughput", 69.30, None),
    ("table14", "ResNet-50/ImageNet layer4.1.conv1", "10 epochs", 0.49, None),
    ("table14", "MLP/CIFAR-10 fc2", "50 epochs", 0.63, None),
    ("table15", "as printed", "executed MACs", 0.68, None),
    ("table15", "layer3.4.conv2", "width", 41, None),
    ("table15", "layer4.0.downsample.0", "zeros (%)", 99.55, None),
]


@pytest.mark.parametrize(("table", "row", "column", "mean", "std"), AGAIN)
def test_numbers_typed_in_a_second_time_agree(
    table: str, row: str, column: str, mean: float, std: float | None
) -> None:
    (cell,) = [cell for cell in TABLES[table]().cells if (cell.row, cell.column) == (row, column)]

    assert cell.paper is not None
    assert (cell.paper.mean, cell.paper.std) == (mean, std)


def test_what_is_garbled_has_no_number_but_a_remark() -> None:
    cells = {(cell.row, cell.column): cell.paper for cell in TABLES["table3"]().cells}

    assert cells["VGG-19: SNIP", "CIFAR-10 98 %"] == Published(None, None, GARBLED)
    assert cells["ResNet-50: SNIP", "CIFAR-10 98 %"] is None


def test_numbers_above_the_dense_network_are_marked() -> None:
    cells = {(cell.row, cell.column): cell.paper for cell in TABLES["table3"]().cells}
    odd = cells["VGG-19: Chase+SNIP (S_c = 0.5)", "CIFAR-100 90 %"]
    dense = cells["VGG-19: Dense", "CIFAR-100 90 %"]

    assert odd is not None
    assert dense is not None
    assert odd.mean == 78.26
    assert dense.mean == 73.43
    assert "exchanged" in odd.remark


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("93.85±0.05", Published(93.85, 0.05)),
        ("0.42", Published(0.42)),
        ("–", None),
        ("?", Published(None, None, GARBLED)),
    ],
)
def test_a_number_is_read_as_printed(text: str, found: Published | None) -> None:
    assert number(text) == found


def test_a_remark_belongs_to_every_value_of_its_line() -> None:
    assert grid("a | 1 2±0.5 – # odd", ("x", "y", "z")) == {
        "a": {"x": Published(1, None, "odd"), "y": Published(2, 0.5, "odd"), "z": None}
    }


def test_a_line_with_a_value_too_many_is_found_out() -> None:
    with pytest.raises(ValueError, match="zip"):
        grid("a | 1 2", ("x",))
