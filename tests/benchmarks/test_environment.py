from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_nvml import FakeNvml

from chase.benchmarks import environment as environments
from chase.benchmarks.environment import environment, environment_after, typing_rule


def test_the_environment_is_json_and_names_versions() -> None:
    found = environment()

    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert "CPUExecutionProvider" in found["providers"]
    assert {"date", "os", "python", "chase", "onnx", "onnxruntime", "cpu", "cores", "gpu"} <= set(found)


def test_the_load_is_known_at_both_ends() -> None:
    found = environment_after({"date": "then", "load_average_start": [1.0, 1.0, 1.0]})

    assert (found["date"], found["load_average_start"]) == ("then", [1.0, 1.0, 1.0])
    assert len(found["load_average_end"]) == 3
    assert found["date_end"] > "2026"


@pytest.mark.parametrize(
    ("version", "rule"),
    [(None, None), ("10.16.1.11", "strong or weak"), ("11.4.0", "strong"), ("8.6.1", "strong or weak")],
)
def test_the_typing_rule_follows_from_the_major_version(version: str | None, rule: str | None) -> None:
    assert typing_rule(version) == rule


def test_the_processor_has_a_name_everywhere(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"

    assert environments._cpu(cpuinfo)
    cpuinfo.write_text("processor : 0\nmodel name\t: Fast 9000: X\ncpu MHz\t\t: 2445.4\nmodel name : other\n")
    assert environments._cpu(cpuinfo) == "Fast 9000: X"
    assert environments._mhz(cpuinfo) == 2445.4
    cpuinfo.write_text("processor : 0\n")
    assert environments._cpu(cpuinfo)
    assert environments._mhz(cpuinfo) is None


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu.max": ""}, None),
    ],
)
def test_a_container_limits_the_cores(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    assert environments._cpu_limit(tmp_path) == cores


def test_memory_is_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:       2 kB\nMemAvailable:    1 kB\n")

    assert environments._memory("MemTotal", tmp_path / "meminfo") == 2048
    assert environments._memory("MemTotal", tmp_path / "gone") is None


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An H200 as cuda:1, and nvidia-smi, whose path this is."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 580.1\n")
    program.chmod(0o755)
    names = {torch.device("cuda", 0): "small", torch.device("cuda", 1): "H200"}
    fakes: dict[str, Any] = {
        "is_available": lambda: True,
        "get_device_capability": lambda device: (9, 0),
        "get_device_name": names.__getitem__,
        "mem_get_info": lambda device: (100, 140),
        "get_device_properties": lambda device: SimpleNamespace(uuid="GPU-1234"),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92600)
    monkeypatch.setattr("shutil.which", lambda name: str(program))
    return program


def test_the_gpu_that_is_measured_is_described(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())

    found = environment(torch.device("cuda", 1))["gpu"]

    assert (found["name"], found["compute_capability"], found["driver"]) == ("H200", "9.0", "580.1")
    assert (found["free_memory_bytes"], found["memory_bytes"], found["cudnn"]) == (100, 140, 92600)
    assert (found["clocks"]["max_sm_mhz"], found["clocks"]["sm_mhz"], found["no_clocks"]) == (2010, 1980, None)
    assert environment(torch.device("cpu"))["gpu"]["name"] == "small"


def test_without_nvml_the_environment_says_why(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)

    found = environment()["gpu"]

    assert found["clocks"] is None
    assert "pip install nvidia-ml-py" in found["no_clocks"]


def test_a_driver_may_not_tell_its_version(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.write_text("#!/bin/sh\nexit 9\n")
    assert environments._driver() is None
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert environments._driver() is None


def test_what_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environments._version("no-such-thing-at-all") is None
    assert environments._version("no-such-thing-at-all", "torch") is not None
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert environments._providers() == []
