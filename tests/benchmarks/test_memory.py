from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_exports import exported_here
from torch import nn

from chase.benchmarks import memory
from chase.benchmarks.memory import GpuMemory, grown, main, resident_peaks

GPU = torch.device("cuda", 0)
LEAST, MOST = 15_000_000, 80_000_000  # some of the 16 MB may lie in pages that the process holds already
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell their memory")


class Heap:
    """The counters of a GPU: what torch allocated and reserved, and what others took beside it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.allocated = self.reserved = self.worst = self.beside = 0
        fakes: dict[str, Callable[..., Any]] = {
            "synchronize": lambda device: None,
            "reset_peak_memory_stats": self._reset,
            "memory_allocated": lambda device: self.allocated,
            "max_memory_allocated": lambda device: self.worst,
            "memory_reserved": lambda device: self.reserved,
            "mem_get_info": lambda device: (1000 - self.reserved - self.beside, 1000),
        }
        for name, fake in fakes.items():
            patch.setattr(torch.cuda, name, fake)

    def _reset(self, device: torch.device) -> None:
        self.worst = self.allocated

    def take(self, size: int) -> None:
        self.allocated += size
        self.worst = max(self.worst, self.allocated)
        self.reserved = max(self.reserved, self.allocated + 10)

    def free(self, size: int) -> None:
        self.allocated -= size


def test_the_peak_is_what_is_kept_and_the_worst_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    heap = Heap(monkeypatch)
    heap.take(70)  # somebody else's weights
    found = GpuMemory(GPU)

    with found.watched():  # opens: weights
        heap.take(100)
    heap.take(30)  # the next candidate opens
    with found.watched():  # runs
        heap.take(50)
        heap.free(45)

    assert found.peak_bytes == 150
    with found.watched():  # runs again, and needs less
        heap.take(20)
        heap.free(20)
    assert found.peak_bytes == 125


def test_what_libraries_take_beside_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    heap = Heap(monkeypatch)
    found = GpuMemory(GPU)

    with found.watched():
        heap.beside += 200
    with found.watched():
        heap.take(10)
        heap.free(10)

    assert found.peak_bytes == 210


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with weights of 16 MB."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2000), nn.Linear(2000, 2000)).eval()
    return exported_here(model, tmp_path_factory.mktemp("big") / "big.ts").path


@ON_LINUX
def test_memory_grows_by_what_a_file_takes(big: Path) -> None:
    found = grown(big, runtime="torchscript", batch_sizes=[1, 3], threads=torch.get_num_threads())

    assert set(found) == {1, 3}
    assert all(each is not None and LEAST <= each <= MOST for each in found.values())


@pytest.mark.slow
@ON_LINUX
def test_a_child_measures_main_memory_in_a_process_of_its_own(big: Path) -> None:
    found = resident_peaks(big, runtime="torchscript", batch_sizes=[1, 3], threads=1)

    assert set(found) == {1, 3}
    assert all(LEAST <= each <= MOST for each in found.values())


def test_a_child_that_fails_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=2, stdout=b"", stderr=b"no such file")
    monkeypatch.setattr("subprocess.run", lambda *given, **options: failed)

    assert resident_peaks(tmp_path / "gone.onnx", runtime="onnxruntime", batch_sizes=[1], threads=1) == {}


def test_the_command_prints_bytes_by_batch_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {}

    def fake(path: Path, **options: Any) -> dict[int, int | None]:
        given.update(options, path=path)
        return {1: 5, 2: None}

    monkeypatch.setattr(memory, "grown", fake)

    main(["a.onnx", "--batch-size=1", "--batch-size=2", "--runtime", "onnxruntime", "--threads=2"])

    assert given == {"path": Path("a.onnx"), "runtime": "onnxruntime", "batch_sizes": [1, 2], "threads": 2}
    assert json.loads(capsys.readouterr().out) == {"1": 5, "2": None}


def test_a_system_that_does_not_tell_leaves_its_sizes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = SimpleNamespace(returncode=0, stdout=b'a library talks\n{"1": 5, "2": null}\n')
    monkeypatch.setattr("subprocess.run", lambda *given, **options: done)

    assert resident_peaks(tmp_path / "a.onnx", runtime="onnxruntime", batch_sizes=[1, 2], threads=1) == {1: 5}
