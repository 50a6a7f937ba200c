from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from chase.benchmarks import environment as environments
from chase.benchmarks.report import Report, Row
from chase.errors import CheckpointError, OutputError

ROW = Row(
    artifact="slim.onnx",
    runtime="onnxruntime",
    provider="CPUExecutionProvider",
    precision="fp32",
    device="cpu",
    batch_size=2,
    samples_ms=(1.0, 2.0, 3.0),
    throughput=1000.0,
    macs={"theoretical": 1, "gpu_supported": 2, "dense": 3},
    params={"nonzero": 1, "stored": 2, "dense": 3},
    size_bytes=123,
    accuracy=None,
    accuracy_reason="no data was given",
    agreement=100.0,
    speedup_vs_dense={"median": 2.0, "ci95": [1.9, 2.1], "verdict": "faster"},
)
REPORT = Report(environment={"cpu": "a fast one", "threads": 2}, rows=(ROW,))


def test_a_row_is_written_as_designed() -> None:
    written = REPORT.to_dict()["rows"][0]

    assert list(written) == [
        "artifact",
        "runtime",
        "provider",
        "precision",
        "device",
        "batch_size",
        "latency_ms",
        "throughput",
        "macs",
        "params",
        "size_bytes",
        "accuracy",
        "accuracy_reason",
        "agreement",
        "speedup_vs_dense",
    ]
    assert list(written["latency_ms"]) == ["p50", "p90", "p99", "mean", "cv", "samples"]
    assert (written["latency_ms"]["p50"], written["latency_ms"]["samples"]) == (2.0, [1.0, 2.0, 3.0])


def test_a_report_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "bench.json"

    REPORT.save(path)

    assert Report.load(path) == REPORT
    assert Report.load(str(path)).to_dict() == REPORT.to_dict()


def test_numbers_that_json_does_not_have_are_null(tmp_path: Path) -> None:
    odd = Report(environment={"load": float("nan"), "all": (1.0, float("inf"))}, rows=())

    odd.save(tmp_path / "bench.json")

    assert json.loads((tmp_path / "bench.json").read_text())["environment"] == {"load": None, "all": [1.0, None]}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"rows": [{}], "environment": {}}', '{"rows": [1]}'])
def test_a_foreign_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bench.json"
    path.write_text(content)

    with pytest.raises(CheckpointError, match="bench.json is no benchmark report"):
        Report.load(path)


def test_a_missing_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file: .*bench.json; make it with `chase bench`"):
        Report.load(tmp_path / "bench.json")


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="cannot write"):
        REPORT.save(tmp_path / "file" / "bench.json")


def test_the_environment_is_json_and_names_versions() -> None:
    found = environments.environment()

    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert {"date", "os", "python", "chase", "onnx", "onnxruntime", "cpu", "cores", "gpu"} <= set(found)


def test_the_processor_has_a_name_everywhere(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"

    assert environments._cpu(cpuinfo)
    cpuinfo.write_text("processor : 0\nmodel name\t: Fast 9000: X\n")
    assert environments._cpu(cpuinfo) == "Fast 9000: X"
    cpuinfo.write_text("processor : 0\n")
    assert environments._cpu(cpuinfo)


def test_a_gpu_is_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 580.1\n")
    program.chmod(0o755)
    fakes: dict[str, Any] = {
        "is_available": lambda: True,
        "get_device_capability": lambda: (9, 0),
        "get_device_name": lambda: "H200",
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr("shutil.which", lambda name: str(program))

    found = environments.environment()["gpu"]

    assert (found["name"], found["compute_capability"], found["driver"]) == ("H200", "9.0", "580.1")
    program.write_text("#!/bin/sh\nexit 9\n")
    assert environments._driver() is None
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert environments._driver() is None


def test_what_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environments._version("no-such-thing-at-all") is None
    assert environments._version("no-such-thing-at-all", "torch") is not None
