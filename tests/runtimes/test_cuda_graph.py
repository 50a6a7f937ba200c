from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_artifacts import images, tiny
from torch import Tensor

from chase.errors import RecipeError
from chase.runtimes import open_runtime
from chase.runtimes.cuda_graph import CudaGraph

CUDA = torch.device("cuda", 0)


class Doubler:
    """A runtime that says it is on a GPU, answers 2x and notes its calls; `fails` in a capture if told so."""

    name, provider, device = "doubler", "cuda:0", CUDA

    def __init__(self, log: list[str], fails: bool = False) -> None:
        self.log, self.fails = log, fails

    def run(self, x: Tensor) -> Tensor:
        self.log.append(f"run {len(x)}")
        if self.fails and self.log[-2].startswith("begin"):
            raise RuntimeError("operation not permitted when stream is capturing\nand so on")
        self.given, self.answer = x, x * 2
        return self.answer

    def __enter__(self) -> Doubler:
        self.log.append("enter")
        return self

    def __exit__(self, *error: object) -> None:
        self.log.append("exit")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand-ins for what torch.cuda does to streams and graphs, which note what is done."""
    log: list[str] = []

    class Stream:
        def __init__(self, name: Any) -> None:
            self.name = "side" if name == CUDA else name

        def wait_stream(self, other: Stream) -> None:
            log.append(f"{self.name} waits for {other.name}")

    class Graph:
        given: Tensor
        answer: Tensor

        def replay(self) -> None:
            log.append("replay")
            self.answer.copy_(self.given * 2)  # as the kernels would, into the same memory

        def pool(self) -> str:
            return "pool"

    @contextlib.contextmanager
    def on(stream: Stream) -> Iterator[None]:
        log.append(f"on {stream.name}")
        yield
        log.append(f"off {stream.name}")

    @contextlib.contextmanager
    def capture(graph: Any, pool: Any) -> Iterator[None]:
        log.append(f"begin in {pool}")
        yield
        log.append("end")
        graph.given, graph.answer = RUNTIME[0].given, RUNTIME[0].answer

    fakes: dict[str, Callable[..., Any]] = {
        "device": lambda device: contextlib.nullcontext(),
        "current_stream": lambda device: Stream("main"),
        "Stream": Stream,
        "stream": on,
        "CUDAGraph": Graph,
        "graph": capture,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return log


RUNTIME: list[Doubler] = []


def wrapped(log: list[str], **arguments: bool) -> CudaGraph:
    RUNTIME[:] = [Doubler(log, **arguments)]
    return CudaGraph(RUNTIME[0])


WARM_UP = ["side waits for main", "on side", *["run 2"] * 3, "off side", "main waits for side"]


def test_a_call_is_warmed_up_captured_and_replayed(log: list[str]) -> None:
    x = images(2)

    with wrapped(log) as runtime:
        found = runtime.run(x)

    assert torch.equal(found, x * 2)
    assert log == ["enter", *WARM_UP, "begin in None", "run 2", "end", "replay", "exit"]
    assert (runtime.name, runtime.provider, runtime.device) == ("doubler", "cuda:0, CUDA graph", CUDA)


def test_the_same_shape_is_only_replayed_and_another_is_captured_too(log: list[str]) -> None:
    runtime = wrapped(log)
    runtime.run(images(2))
    del log[:]

    again = runtime.run(images(4)[2:])
    assert log == ["replay"]
    assert torch.equal(again, images(4)[2:] * 2)

    runtime.run(images(3))
    assert log.count("run 3") == 4
    assert "begin in pool" in log  # graphs share their memory


def test_answers_stay_as_they_are_and_inputs_are_not_written_to(log: list[str]) -> None:
    runtime = wrapped(log)
    first = images(2)

    answer = runtime.run(first)
    runtime.run(first + 1)

    assert torch.equal(answer, images(2) * 2)
    assert torch.equal(first, images(2))


def test_what_cannot_be_captured_is_refused_in_one_line(log: list[str]) -> None:
    with pytest.raises(
        RecipeError, match=r"doubler cannot be captured .*: operation not permitted .*; leave cuda_graph"
    ):
        wrapped(log, fails=True).run(images(2))


def test_a_runtime_on_the_cpu_is_refused() -> None:
    runtime: Any = SimpleNamespace(name="eager", device=torch.device("cpu"))

    with pytest.raises(RecipeError, match="cuda_graph needs a CUDA device; eager is on cpu"):
        CudaGraph(runtime)


@pytest.mark.gpu
def test_a_captured_network_answers_as_itself() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")

    with open_runtime(tiny(), device="cuda", cuda_graph=True) as runtime:
        for count in (1, 3, 1):
            torch.testing.assert_close(runtime.run(images(count).cuda()).cpu(), tiny()(images(count)))
