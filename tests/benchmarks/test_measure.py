from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from fake_cuda import FakeCuda
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.benchmarks import measure as measuring
from chase.benchmarks.candidates import Candidate, find_candidates
from chase.benchmarks.measure import Entry, clocks, measure, open_entry
from chase.benchmarks.memory import GpuMemory
from chase.benchmarks.timing import CudaWatch, Sample, Series
from chase.errors import RecipeError

if TYPE_CHECKING:
    from typing_extensions import Self

CPU = torch.device("cpu")


class FakeRuntime:
    """Launches kernels on a fake GPU; its tensors are on the CPU."""

    name = provider = "fake"
    device = CPU

    def __init__(
        self, cuda: FakeCuda, *, gpu_ms: float, host_ms: float = 0.1, problem: Exception | None = None
    ) -> None:
        self._launch = cuda.kernel(host_ms=host_ms, gpu_ms=gpu_ms)
        self._problem = problem

    def run(self, x: Tensor) -> Tensor:
        if self._problem:
            raise self._problem
        self._launch()
        return torch.zeros(len(x), 4)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class FakeMemory(GpuMemory):
    """Always 5 bytes."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.peak_bytes = 5

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        yield


def candidate(label: str, **facts: Any) -> Candidate:
    rest: dict[str, Any] = {"input_shape": (3, 4, 4), "macs": {}, "params": {}, "size_bytes": 1, "kind": "slim"}
    rest |= {"source": nn.Identity(), "runtime": "eager"}
    return Candidate(label=label, **rest | facts)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda().install(monkeypatch)
    monkeypatch.setattr(measuring, "watch_for", lambda device: CudaWatch(torch.device("cuda", 0), fake.now))
    return fake


def test_on_a_gpu_all_clocks_copies_and_memory_are_told(cuda: FakeCuda) -> None:
    facts: tuple[dict[str, Any], ...] = (
        {"macs": {"gpu_supported": 30}, "kind": "dense"},
        {"macs": {"gpu_supported": 10}},
    )
    entries = [
        Entry(candidate(label, **fact), FakeRuntime(cuda, gpu_ms=gpu_ms), FakeMemory())
        for label, gpu_ms, fact in zip(("dense", "slim"), (20, 10), facts, strict=True)
    ]

    dense, slim = measure(entries, 8, budget_s=1.0, seed=0)

    assert slim["samples_ms"] == pytest.approx([10.1] * len(slim["samples_ms"]))
    assert slim["gpu_ms"] == pytest.approx(slim["samples_ms"])
    assert slim["enqueue_ms"] == pytest.approx([0.1] * len(slim["samples_ms"]))
    assert (slim["cpu_ms"], slim["peak_memory_bytes"], slim["batch_size"]) == (None, 5, 8)
    assert set(slim["transfer_ms"]) == {"to_device", "from_device"}
    assert slim["throughput"] == pytest.approx(800, rel=0.02)
    assert dense["speedup_vs_dense"] is None
    assert slim["speedup_vs_dense"]["median"] == pytest.approx(20.1 / 10.1)
    told = {name: slim["speedup_vs_dense"][name] for name in ("verdict", "clock", "baseline", "mac_ratio")}
    assert told == {"verdict": "faster", "clock": "host", "baseline": "dense", "mac_ratio": 3.0}


def test_a_gpu_is_warmed_up_for_fifty_calls_or_two_seconds(cuda: FakeCuda) -> None:
    first, rounds, slices = 1, 10, 1 + 3

    measure([Entry(candidate("slow"), FakeRuntime(cuda, gpu_ms=105), FakeMemory())], 1, budget_s=0.0, seed=0)
    slow = cuda.launches
    measure([Entry(candidate("fast"), FakeRuntime(cuda, gpu_ms=1), FakeMemory())], 1, budget_s=0.0, seed=0)

    assert slow == first + 20 + rounds + slices  # 2 s
    assert cuda.launches - slow == first + 50 + rounds + slices


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (torch.OutOfMemoryError("out of memory"), r"big on eager cannot run \[64, 3, 4, 4\]: out of memory"),
        (RecipeError("eager cannot run an input of [64]"), r"big: eager cannot run an input of \[64\]"),
    ],
)
def test_what_cannot_run_is_named(cuda: FakeCuda, problem: Exception, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        measure([Entry(candidate("big"), FakeRuntime(cuda, gpu_ms=1, problem=problem))], 64, budget_s=0.0, seed=0)


def series(host: float, cpu: float | None) -> Series:
    return Series(samples=[Sample(host, cpu=cpu)] * 10)


@pytest.mark.parametrize(
    ("first", "second", "threads", "clock"),
    [
        (series(0.010, 0.010), series(0.020, 0.009), 1, "cpu"),
        (series(0.010, 0.010), series(0.020, 0.009), 2, "host"),  # processor time of several threads is no time
        (series(0.010, 0.010), series(0.010, 0.019), 1, "host"),  # a library that took more threads than it was given
        (series(0.010, 0.0), series(0.010, 0.0), 1, "host"),  # a clock too coarse for such calls
        (series(0.010, None), series(0.010, None), 1, "host"),
    ],
)
def test_processor_time_is_compared_where_one_thread_computes(
    first: Series, second: Series, threads: int, clock: str
) -> None:
    name, *samples = clocks(first, second, threads)

    assert name == clock
    assert samples == ([first.cpu_ms, second.cpu_ms] if clock == "cpu" else [first.host_ms, second.host_ms])


def test_a_cuda_graph_is_asked_for_behind_the_name_of_a_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("chase.benchmarks.candidates.open_runtime", lambda source, **options: asked.update(options))

    found = find_candidates(
        [nn.Conv2d(3, 4, 1)], runtimes=["eager", "eager+cuda-graph"], example=torch.zeros(1, 3, 4, 4)
    )
    found[1].open(CPU)

    assert [each.runtime for each in found] == ["eager", "eager+cuda-graph"]
    assert asked == {"runtime": "eager", "device": CPU, "cuda_graph": True}
    found[0].open(CPU)
    assert asked["cuda_graph"] is False


def test_an_entry_is_closed_with_its_stack(tmp_path: Path) -> None:
    closed: list[str] = []

    class Source(Candidate):
        def open(self, device: torch.device) -> Any:
            return contextlib.closing(type("Runtime", (), {"close": lambda self: closed.append("closed")})())

    made = Artifact(path=tmp_path / "a.onnx", format="onnx", input_shape=(3, 4, 4))
    with contextlib.ExitStack() as stack:
        entry = open_entry(Source(**vars(candidate("x", source=made))), CPU, stack)
        assert (entry.memory, closed) == (None, [])

    assert closed == ["closed"]
