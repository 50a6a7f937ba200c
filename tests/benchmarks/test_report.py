from __future__ import annotations

import copy
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from chase.benchmarks.report import DERIVED, Report, Row
from chase.benchmarks.schema import ROW as FORM
from chase.benchmarks.schema import problems
from chase.errors import CheckpointError, OutputError

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"

ROW = Row(
    artifact="slim.onnx",
    runtime="onnxruntime",
    provider="CPUExecutionProvider",
    precision="fp32",
    device="cpu",
    batch_size=2,
    samples_ms=(1.0, 2.0, 3.0),
    first_call_ms=7.0,
    cpu_ms=(0.9, 1.0, 1.1),
    throughput=1000.0,
    macs={"theoretical": 1, "gpu_supported": 2, "dense": 6},
    params={"nonzero": 1, "stored": 2, "dense": 3},
    size_bytes=123,
    compressed_bytes=100,
    accuracy_reason="no data was given",
    agreement=100.0,
    speedup_vs_dense={
        "median": 2.4,
        "ci95": [2.3, 2.5],
        "verdict": "faster",
        "clock": "cpu",
        "baseline": "dense.onnx",
        "mac_ratio": 3.0,
    },
    warnings=("no p99: 3 calls were timed",),
    settings={"threads": 1},
)
REPORT = Report(
    environment={"cpu": "a fast one", "threads": 2},
    rows=(ROW,),
    clocks=({"t_s": 0.2, "sm_mhz": 1980, "temperature_c": 40, "power_w": None, "throttle": ["power limit"]},),
    profiles={
        "slim.onnx": (
            {
                "layer": "conv1",
                "op": "Conv",
                "macs": 10,
                "share_of_macs": 1.0,
                "ms": 0.5,
                "share_of_time": 0.5,
                "width": [3, 13],
                "aligned": False,
            },
        )
    },
    command=("chase", "bench", "slim.onnx"),
)


def written() -> dict[str, Any]:
    return copy.deepcopy(REPORT.to_dict())


def test_a_row_is_written_with_every_field_and_what_follows_from_them() -> None:
    row = written()["rows"][0]

    assert set(row) == {each.name for each in fields(Row)} | set(DERIVED)
    assert row["samples_ms"] == [1.0, 2.0, 3.0]
    assert list(row["latency_ms"]) == ["p50", "p90", "p99", "mean", "cv", "samples"]
    assert (row["latency_ms"]["p50"], row["latency_ms"]["p99"], row["latency_ms"]["samples"]) == (2.0, None, 3)


def test_efficiency_is_the_speedup_over_the_ratio_of_macs() -> None:
    alone = replace(ROW, speedup_vs_dense=None)

    assert ROW.mac_ratio == alone.mac_ratio == 3.0
    assert ROW.efficiency == pytest.approx(0.8)
    assert alone.efficiency is None
    assert replace(ROW, macs={}).mac_ratio is None


def test_efficiency_counts_the_macs_of_the_baseline_that_was_timed() -> None:
    assert ROW.speedup_vs_dense is not None
    smaller = replace(ROW, speedup_vs_dense={**ROW.speedup_vs_dense, "mac_ratio": 2.0})
    unknown = replace(ROW, speedup_vs_dense={**ROW.speedup_vs_dense, "mac_ratio": None})

    assert smaller.efficiency == pytest.approx(1.2)
    assert unknown.efficiency is None


def test_a_report_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "bench.json"

    REPORT.save(path)

    assert Report.load(path).to_dict() == REPORT.to_dict()
    assert Report.load(str(path)).rows[0] == replace(ROW, speedup_vs_dense=Report.load(path).rows[0].speedup_vs_dense)
    assert Report.load(path).rows[0].speedup_vs_dense == ROW.speedup_vs_dense


def test_the_form_has_a_check_for_every_field() -> None:
    assert set(FORM) == {each.name for each in fields(Row)} | set(DERIVED)
    assert problems(written()) == []


def test_numbers_that_json_does_not_have_are_null(tmp_path: Path) -> None:
    odd = replace(REPORT, environment={"load": float("nan"), "all": (1.0, float("inf"))})

    odd.save(tmp_path / "bench.json")

    assert json.loads((tmp_path / "bench.json").read_text())["environment"] == {"load": None, "all": [1.0, None]}


@pytest.mark.parametrize(
    ("where", "value", "problem"),
    [
        (("rows", 0, "samples_ms"), [], r"rows\[0\].samples_ms cannot be \[\]"),
        (("rows", 0, "samples_ms"), [1.0, 0.0], "samples_ms cannot be"),
        (("rows", 0, "batch_size"), "2", "batch_size cannot be 2"),
        (("rows", 0, "batch_size"), True, "batch_size cannot be True"),
        (("rows", 0, "accuracy"), 100.1, "accuracy cannot be 100.1"),
        (("rows", 0, "throughput"), None, "throughput cannot be None"),
        (("rows", 0, "macs"), {"dense": 1}, "macs cannot be"),
        (("rows", 0, "macs"), {"theoretical": 1, "gpu_supported": 2, "dense": -3}, "macs cannot be"),
        (("rows", 0, "params"), {"theoretical": 1, "gpu_supported": 2, "dense": 3}, "params cannot be"),
        (("rows", 0, "speedup_vs_dense", "verdict"), "maybe", "speedup_vs_dense cannot be"),
        (("rows", 0, "speedup_vs_dense", "verdict"), ["faster"], "speedup_vs_dense cannot be"),
        (("rows", 0, "latency_ms", "p50"), None, "latency_ms cannot be"),
        (("rows", 0, "transfer_ms"), {"to_device": 1.0}, "transfer_ms cannot be"),
        (("rows", 0, "warnings"), "slow", "warnings cannot be slow"),
        (("rows", 0, "surprise"), 1, r"rows\[0\].surprise is not a field of this version"),
        (("rows", 0), 7, r"rows\[0\] is no object"),
        (("rows",), [], r"rows cannot be \[\]"),
        (("clocks", 0, "throttle"), None, "clocks cannot be"),
        (("profiles", "slim.onnx", 0, "aligned"), 8, "profiles cannot be"),
        (("environment",), [], r"environment cannot be \[\]"),
    ],
)
def test_what_is_wrong_in_a_report_is_named(tmp_path: Path, where: tuple[Any, ...], value: Any, problem: str) -> None:
    content = written()
    part = content
    for step in where[:-1]:
        part = part[step]
    part[where[-1]] = value
    (tmp_path / "bench.json").write_text(json.dumps(content))

    with pytest.raises(CheckpointError, match=f"bench.json is no benchmark report: .*{problem}"):
        Report.load(tmp_path / "bench.json")


@pytest.mark.parametrize("name", sorted(FORM))
def test_no_field_may_be_missing(name: str) -> None:
    content = written()
    del content["rows"][0][name]

    assert problems(content) == [f"rows[0].{name} is missing"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"rows": [{}], "environment": {}}', '{"rows": [1]}', "null"])
def test_a_foreign_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(content)

    with pytest.raises(CheckpointError, match="bench.json is no benchmark report"):
        Report.load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00"])
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bench.json"
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match="bench.json is no JSON"):
        Report.load(path)


def test_a_missing_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file: .*bench.json; make it with `chase bench`"):
        Report.load(tmp_path / "bench.json")


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="cannot write"):
        REPORT.save(tmp_path / "file" / "bench.json")


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda path: str(path.relative_to(RESULTS)))
def test_published_results_say_where_and_how_they_were_made(path: Path) -> None:
    content = json.loads(path.read_text())

    assert {"torch", "cpu", "date"} <= content["environment"].keys()
    assert content["command"]
    assert content["rows"]
    if "latency_ms" in content["rows"][0]:  # a report of the benchmark; the sweeps have rows of their own
        assert problems(content) == []
