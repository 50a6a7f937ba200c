from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_cuda import FakeCuda
from small_profiles import ALIGNED, EXAMPLE, MACS, WIDTHS, network, weighted
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.benchmarks import profile as profiles
from chase.benchmarks.candidates import Candidate
from chase.benchmarks.layers import REST
from chase.benchmarks.profile import profile_module, profile_of

CPU = torch.device("cpu")


class Slow(nn.Module):
    """Passes on what it gets, after a while."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            time.sleep(self.seconds)
        return x


def test_modules_are_listed_in_order_with_their_macs_and_widths() -> None:
    found = profile_module(network(), EXAMPLE, rounds=2)

    assert [each["layer"] for each in found] == [*"0123456", REST]
    assert [each["op"] for each in found][:4] == ["Conv2d", "ReLU", "Conv2d", "Conv2d"]
    assert weighted(found, "macs") == {name: 2 * macs for name, macs in MACS.items()}
    assert weighted(found, "width") == WIDTHS
    assert weighted(found, "aligned") == ALIGNED
    assert sum(each["share_of_time"] for each in found) == pytest.approx(1)
    assert sum(weighted(found, "share_of_macs").values()) == pytest.approx(1)


def test_the_time_goes_to_the_module_that_takes_it_however_often_it_is_called() -> None:
    slow = Slow(0.02)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slow, self.fast = slow, nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.slow(self.fast(self.slow(x)))
            return answer + 1

    found = {each["layer"]: each["ms"] for each in profile_module(Twice(), EXAMPLE, rounds=3)}

    assert found["slow"] >= 40
    assert found["fast"] < 20


def test_what_is_between_modules_is_told() -> None:
    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            time.sleep(0.02)
            answer: Tensor = self.relu(x)
            return answer

    found = {each["layer"]: each["share_of_time"] for each in profile_module(Between(), EXAMPLE, rounds=3)}

    assert found[REST] > 0.5


def test_a_profile_leaves_the_network_as_it_was() -> None:
    model = network().train()

    profile_module(model, EXAMPLE, rounds=1)

    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_network_that_is_one_layer_and_one_that_cannot_be_traced() -> None:
    class Stubborn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    (alone, _) = profile_module(nn.Conv2d(3, 5, 1), EXAMPLE, rounds=1)
    stubborn = profile_module(nn.Sequential(Stubborn(), nn.Conv2d(3, 5, 1)), EXAMPLE, rounds=1)

    assert (alone["layer"], alone["macs"], alone["aligned"]) == ("model", 2 * 15 * 64, True)
    assert [each["macs"] for each in stubborn] == [None] * 3
    assert [each["share_of_macs"] for each in stubborn] == [None] * 3


def test_on_a_gpu_events_are_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda().install(monkeypatch)
    stops = profiles._Stops(torch.device("cuda", 0))

    class Launch(nn.Module):
        def __init__(self, gpu_ms: float) -> None:
            super().__init__()
            self.gpu_ms = gpu_ms

        def forward(self, x: Tensor) -> Tensor:
            cuda.launch(host_ms=0.0, gpu_ms=self.gpu_ms)
            return x

    model = nn.Sequential(Launch(3), Launch(5))
    for name, module in model.named_children():
        list(stops.hooks(name, module))

    assert stops.forward(model, EXAMPLE) == pytest.approx({"0": 3, "1": 5, REST: 0})
    assert cuda.host_s == cuda.free_s  # it has waited for the events


def test_each_runtime_that_tells_is_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    model, artifact = network(), Artifact(path=Path("a.onnx"), format="onnx", input_shape=(3, 8, 8))
    facts: dict[str, Any] = {"kind": "slim", "input_shape": (3, 8, 8), "macs": {}, "params": {}, "size_bytes": 1}
    holder: Any = SimpleNamespace(model=model)
    asked: list[Any] = []

    def note(answer: int) -> Callable[..., list[int]]:
        def profile(source: Any, x: Tensor, **options: Any) -> list[int]:
            asked.append((source, len(x)))
            return [answer]

        return profile

    monkeypatch.setattr(profiles, "profile_module", note(1))
    monkeypatch.setattr(profiles, "profile_onnx", note(2))

    def layers_of(source: Any, runtime: str, device: torch.device = CPU) -> list[Any]:
        candidate = Candidate(label="x", source=source, runtime=runtime, **facts)
        return profile_of(candidate, device, batch_size=3, threads=1)

    assert [layers_of(model, "eager"), layers_of(holder, "eager"), layers_of(artifact, "onnxruntime")] == [
        [1],
        [1],
        [2],
    ]
    assert asked == [(model, 3), (model, 3), (artifact, 3)]
    assert layers_of(model, "compiled") == []
    assert layers_of(artifact, "onnxruntime", torch.device("cuda")) == []
    assert layers_of(artifact, "tensorrt") == []
