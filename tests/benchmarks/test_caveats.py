from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from chase.artifact import Artifact
from chase.benchmarks.candidates import Candidate
from chase.benchmarks.caveats import busy_share, caveats, launches, refused
from chase.benchmarks.timing import Sample, Series
from chase.runtimes.base import torch_settings

CPU = torch.device("cpu")


def candidate(runtime: str = "eager", **facts: Any) -> Candidate:
    fields = {name: facts.pop(name) for name in ("precision",) if name in facts}
    source = Artifact(path=Path("slim.onnx"), format="onnx", input_shape=(3, 4, 4), **facts)
    rest: dict[str, Any] = {"input_shape": (3, 4, 4), "macs": {}, "params": {}, "size_bytes": 1, "kind": "slim"}
    return Candidate(label="slim", source=source, runtime=runtime, **rest | fields)


def said(series: Series, tried: Candidate | None = None, *, provider: str = "cpu", **given: Any) -> list[str]:
    runtime: Any = SimpleNamespace(provider=provider)
    arguments = {"transfer_ms": None, "threads": 1} | given
    return list(caveats(series, tried or candidate(), runtime, **arguments))


def on_cpu(host: float = 0.010, cpu: float = 0.010, count: int = 100) -> Series:
    return Series(samples=[Sample(host, cpu=cpu)] * count)


def on_gpu(host: float, gpu: float, enqueue: float) -> Series:
    return Series(samples=[Sample(host, gpu=gpu, enqueue=enqueue)] * 100)


def test_a_calm_run_has_no_caveats() -> None:
    assert said(on_cpu()) == []
    assert said(on_gpu(0.010, 0.0099, 0.001)) == []


def test_few_samples_have_no_p99() -> None:
    (found,) = said(on_cpu(count=99))

    assert found == "no p99: 99 calls were timed, and it takes 100; give it more --seconds"


def test_another_program_on_the_processor_is_told() -> None:
    mixed = Series(samples=on_cpu().samples[:80] + on_cpu(host=0.025).samples[:20])

    (found,) = said(mixed)

    assert busy_share(mixed) == pytest.approx(0.2)
    assert found.startswith("another program had the processor in 20 % of the calls: latencies are too high")


def test_several_threads_use_more_time_than_passes_and_only_vary() -> None:
    wild = Series(samples=[Sample(0.010, cpu=0.018)] * 60 + [Sample(0.030, cpu=0.018)] * 40)

    (found,) = said(wild, threads=2)

    assert found.startswith("the calls took very different times (cv 0.54)")


def test_a_launch_bound_run_is_told_the_option_that_helps() -> None:
    (found,) = said(on_gpu(0.00105, 0.00104, 0.0009))

    assert found == (
        "launch-bound: starting the kernels takes 0.900 of 1.040 ms, so smaller layers save nothing; "
        "try --runtime eager+cuda-graph or a larger --batch-size"
    )


def test_who_has_a_graph_already_is_not_told_to_take_one() -> None:
    (found,) = said(on_gpu(0.00105, 0.00104, 0.0009), candidate("eager+cuda-graph"))

    assert found.endswith("try a larger --batch-size")


@pytest.mark.parametrize(("enqueue_ms", "bound"), [(0.79, False), (0.81, True)])
def test_launch_bound_begins_at_four_fifths(enqueue_ms: float, bound: bool) -> None:
    assert bool(said(on_gpu(0.0011, 0.001, enqueue_ms / 1000))) is bound


def test_a_runtime_that_waits_is_never_launch_bound() -> None:
    waiting = on_gpu(0.010, 0.0101, 0.010)

    assert said(waiting, candidate("onnxruntime")) == []
    assert launches(waiting, candidate("onnxruntime")) is None
    assert launches(waiting, candidate("tensorrt")) == [10.0] * 100
    assert launches(on_cpu(), candidate()) is None


def test_copies_that_take_longer_than_the_work_are_told() -> None:
    series = on_gpu(0.010, 0.0099, 0.001)

    (found,) = said(series, transfer_ms={"to_device": 9.0, "from_device": 1.0})

    assert found.startswith("copying to and from the GPU takes 10.000 ms, computing 9.900 ms;")
    assert said(series, transfer_ms={"to_device": 9.0, "from_device": 0.5}) == []


@pytest.mark.parametrize(
    ("provider", "settings", "word"),
    [
        ("CPU bf16", {}, "bf16"),
        ("CPU f16", {}, "f16"),
        ("TensorRT 11.4 on H200", {"tf32": True}, "tf32"),
        ("CPU f32", {}, None),
        ("TensorRT 11.4 on H200", {"tf32": False}, None),
    ],
)
def test_fp32_that_is_computed_in_less_is_told(provider: str, settings: dict[str, Any], word: str | None) -> None:
    found = said(on_cpu(), candidate(settings=settings), provider=provider)

    told = f"fp32 is computed in {word} here; compare it with others that are, or switch it off"
    assert found == ([told] if word else [])


def test_fp32_in_a_run_that_allows_tf32_is_told() -> None:
    with torch_settings(tf32=True):
        (found,) = said(on_cpu(), candidate(), provider="cuda:0")

    assert found.startswith("fp32 is computed in tf32 here")


def test_a_reduced_precision_that_is_computed_in_fp32_is_told() -> None:
    assert said(on_cpu(), candidate(precision="fp16"), provider="CPU f16") == []
    (found,) = said(on_cpu(), candidate(precision="fp16"), provider="CPU f32")
    assert found == "this processor computes fp16 in fp32: the file is smaller, not faster"


def test_batch_sizes_that_a_file_was_not_made_for_are_named() -> None:
    tried = candidate(batch_sizes=(1, 2, 8))

    assert [tried.takes(size) for size in (1, 8, 9)] == [True, True, False]
    assert refused(tried, [32, 128]) == (
        "not measured at batch size 32, 128: it was made for batches of 1 to 8; export again with others"
    )
