from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_nvml import FakeNvml

from chase.benchmarks.clocks import Gpu, Trace, gpu_of, reasons, throttled
from chase.errors import MissingDependency

GPU = torch.device("cuda", 0)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234"))
    return fake


def test_a_sample_is_in_units_that_its_names_say(nvml: FakeNvml) -> None:
    nvml.reasons = 0x4 | 0x40 | 0x1  # and idle, which is no throttling

    assert Gpu(GPU).sample() == {
        "sm_mhz": 1980,
        "temperature_c": 61,
        "power_w": 700.0,
        "throttle": ["power limit", "too hot (hardware)"],
    }
    assert Gpu(GPU).limits() == {"max_sm_mhz": 2010, "power_limit_w": 700.0}


def test_what_a_gpu_does_not_tell_is_none(nvml: FakeNvml) -> None:
    nvml.mhz = nvml.celsius = nvml.milliwatts = nvml.reasons = None

    assert Gpu(GPU).sample() == {"sm_mhz": None, "temperature_c": None, "power_w": None, "throttle": []}


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0x0, []),
        (0x1 | 0x2 | 0x10 | 0x100, []),
        (0x8, ["hardware slowdown"]),
        (0x20, ["too hot (driver)"]),
        (0x80, ["power brake"]),
    ],
)
def test_only_what_lowers_the_clock_is_throttling(bits: int, words: list[str]) -> None:
    assert reasons(bits) == words


def test_a_trace_has_both_ends_and_what_is_between(nvml: FakeNvml) -> None:
    with Trace(Gpu(GPU), interval_s=0.01) as trace:
        start = trace.now()
        while nvml.samples < 4 and trace.now() < 20:
            time.sleep(0.005)
        nvml.reasons = 0x4

    times = [sample["t_s"] for sample in trace.samples]
    assert len(trace.samples) >= 5
    assert times == sorted(times)
    assert times[0] <= round(start, 3) + 0.001
    assert trace.samples[0]["throttle"] == []
    assert trace.samples[-1]["throttle"] == ["power limit"]


def test_a_trace_ends_with_its_block(nvml: FakeNvml) -> None:
    with Trace(Gpu(GPU), interval_s=0.001) as trace:
        pass
    count = nvml.samples
    time.sleep(0.02)

    assert nvml.samples == count
    assert not trace._thread.is_alive()


def test_without_a_gpu_there_is_no_trace() -> None:
    with Trace(None) as trace:
        pass

    assert trace.samples == []


def sample(t_s: float, *throttle: str) -> dict[str, Any]:
    return {"t_s": t_s, "sm_mhz": 1000, "temperature_c": 80, "power_w": 300.0, "throttle": list(throttle)}


def test_a_run_that_throttled_says_so_and_why() -> None:
    samples = [sample(0, "power brake"), sample(1), sample(2, "power limit"), sample(3, "power limit"), sample(4)]

    found = throttled(samples, since_s=1)

    assert found is not None
    assert found.startswith("the GPU was throttled 50 % of the time (power limit); ")
    assert throttled(samples, since_s=4) is None
    assert throttled([]) is None


def test_without_nvml_the_reason_is_told(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_of(torch.device("cpu")) == (None, None)
    monkeypatch.setitem(sys.modules, "pynvml", None)

    gpu, why = gpu_of(GPU)

    assert gpu is None
    assert why == "reading the GPU's clocks needs the package pynvml; run: pip install nvidia-ml-py"


def test_a_gpu_that_nvml_does_not_know_is_told(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="GPU-99"))

    with pytest.raises(MissingDependency, match=r"NVML does not know cuda:0 \(Not Found\)"):
        Gpu(GPU)
