"""What happens around a program; real ones are in tests/exporters/test_executorch.py, for they take long to make."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_artifacts import artifact, images
from torch import Tensor

from chase.artifact import Artifact
from chase.errors import CheckpointError, RecipeError
from chase.runtimes import open_runtime
from chase.runtimes.executorch import ExecuTorch


class FakeProgram:
    """A program that sums each image; `method_names` may be without forward."""

    alive: weakref.ref[FakeProgram]

    def __init__(self, content: bytes) -> None:
        if content != b"a program":
            raise RuntimeError("Failed to load program, error: 0x:23")
        self.method_names = {"forward"}
        FakeProgram.alive = weakref.ref(self)

    def load_method(self, name: str) -> Any:
        return self if name == "forward" else None

    def execute(self, inputs: list[Tensor]) -> list[Tensor]:
        (x,) = inputs
        assert x.is_contiguous()
        return [x.sum((1, 2, 3))[:, None]]


class FakeRuntime:
    """The module executorch.runtime."""

    Runtime: Any

    @staticmethod
    def get() -> Any:
        return FakeRuntime

    @staticmethod
    def load_program(content: bytes) -> FakeProgram:
        return FakeProgram(content)


FakeRuntime.Runtime = FakeRuntime


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pool of threads, as it is set."""
    counts: list[int] = []

    @contextlib.contextmanager
    def fake(*, purpose: str) -> Iterator[Any]:
        yield FakeRuntime

    monkeypatch.setattr("chase.runtimes.executorch.executorch", fake)
    monkeypatch.setattr("chase.runtimes.executorch._set_threads", counts.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    return counts


def program(folder: Path, content: bytes = b"a program", **facts: Any) -> Artifact:
    made = artifact(folder / "net.pte", "executorch", batch_sizes=(1, 1, 4), **facts)
    made.path.write_bytes(content)
    return made


def test_inputs_are_made_contiguous_for_it_reads_other_layouts_wrongly(tmp_path: Path) -> None:
    x = images(2).to(memory_format=torch.channels_last)

    with open_runtime(program(tmp_path)) as runtime:
        torch.testing.assert_close(runtime.run(x), x.sum((1, 2, 3))[:, None])


def test_the_program_outlives_its_loading(tmp_path: Path) -> None:
    """Its method reads the program's memory; without it, the process crashes."""
    runtime = ExecuTorch(program(tmp_path), device=torch.device("cpu"))
    runtime._method = None

    gc.collect()
    assert FakeProgram.alive() is not None


def test_threads_come_from_torch_or_from_the_caller(tmp_path: Path, threads: list[int]) -> None:
    ExecuTorch(program(tmp_path), device=torch.device("cpu"))
    ExecuTorch(program(tmp_path), device=torch.device("cpu"), threads=3)

    assert threads == [7, 3]


def test_it_says_what_xnnpack_leaves_out(tmp_path: Path) -> None:
    part = {"backend": "XNNPACK", "portable": ["aten.where", "aten.any"]}

    assert open_runtime(program(tmp_path)).provider == "cpu"
    assert open_runtime(program(tmp_path, built_for={"backend": "XNNPACK"})).provider == "XNNPACK"
    assert open_runtime(program(tmp_path, built_for=part)).provider == "XNNPACK, portable kernels for 2 operators"


def test_a_broken_program_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"net.pte is not a whole ExecuTorch program \(Failed .*\); export again"):
        open_runtime(program(tmp_path, b"half a prog"))

    monkeypatch.setattr(FakeProgram, "load_method", lambda self, name: None)
    with pytest.raises(CheckpointError, match="net.pte has no method forward; export again"):
        open_runtime(program(tmp_path))


def test_a_gpu_and_a_batch_beyond_the_plan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="executorch runs on the CPU here, not on cuda:0; choose device cpu"):
        ExecuTorch(program(tmp_path), device=torch.device("cuda", 0))
    with (
        open_runtime(program(tmp_path)) as runtime,
        pytest.raises(RecipeError, match="takes batches of 1 to 4, not 5"),
    ):
        runtime.run(images(5))
