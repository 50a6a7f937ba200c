"""Slimmed networks in every format; the table of all of them is published."""

from __future__ import annotations

from typing import Any

import pytest

from chase.benchmarks.exports import ENGINES, FILES, NETWORKS, examine, table
from chase.exporters import verification
from chase.exporters.child import answers


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    here: dict[str, Any] = {"isolated": False}
    monkeypatch.setattr(verification, "answers", lambda *args, **options: answers(*args, **(options | here)))


@pytest.mark.usefixtures("in_this_process")
def test_a_slimmed_network_of_odd_widths_passes_quantised_and_as_an_engine() -> None:
    row = examine("torchvision:resnet18", files=(("onnx", "int8"), ("tensorrt-rtx", "fp16", "sm89")))

    engine = row["files"]["tensorrt-rtx fp16 sm89"]
    assert row["ok"], row["error"]
    assert row["files"]["onnx int8"]["parity"]["snr_db"] >= 20
    assert engine["built_for"]["compute_capabilities"] == ["8.9"]
    assert engine["built_for"]["engine"]["layers"] > 20
    assert engine["parity"]["of"] == "graph"
    assert "not reached" in table([row])
    assert "dB" in table([row])


def test_a_network_that_fails_is_a_row_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise ValueError("no | export today")

    monkeypatch.setattr("chase.benchmarks.exports.measured", fail)

    row = examine("torchvision:resnet18", files=FILES[:2])

    assert not row["ok"]
    assert row["error"] == "RuntimeError: 2 of 2 files failed: torchscript fp32, onnx fp32"
    assert "fails: ValueError: no / export today" in table([row])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_passes_in_every_format(name: str) -> None:
    row = examine(name)

    assert row["ok"], row["error"]
    assert len(row["files"]) == len(FILES + ENGINES)
