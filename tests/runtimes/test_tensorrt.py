"""Engines of TensorRT 10.16 and 11.4, run by the fakes: addresses, streams, checks and refusals."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_tensorrt import VERSIONS
from onnx_graphs import CLASSES, SHAPE, network
from scripted_engine import MISMATCH
from scripted_tensorrt import Script, install

from chase.artifact import Artifact
from chase.errors import CheckpointError, MissingDependency, RecipeError
from chase.exporters.tensorrt.build import build_engine
from chase.exporters.tensorrt.settings import BuildSettings
from chase.runtimes.tensorrt import Engine, RtxEngine

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")


@pytest.fixture(params=VERSIONS)
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Script:
    return install(monkeypatch, request.param)


@pytest.fixture
def artifact(script: Script, tmp_path: Path) -> Artifact:
    return engine_file(tmp_path, BuildSettings(batch_sizes=(2, 4, 8)))


def engine_file(folder: Path, settings: BuildSettings, **facts: Any) -> Artifact:
    plan = build_engine(network(), settings)
    path = folder / "net.engine"
    path.write_bytes(plan.content)
    known = {"input_shape": SHAPE, "built_for": plan.built_for, "batch_sizes": plan.batch_sizes} | facts
    return Artifact(path=path, format="tensorrt", **known)


def opened(artifact: Artifact) -> Engine:
    """An engine whose memory is that of the CPU, which the fake can reach."""
    engine = Engine(artifact, device=GPU)
    engine.device = CPU
    return engine


def images(count: int) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def answers(x: torch.Tensor) -> torch.Tensor:
    return 2 * x.flatten(1)[:, :CLASSES]


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_the_answers_come_through_the_addresses(artifact: Artifact, batch_size: int) -> None:
    x = images(batch_size)

    with opened(artifact) as engine:
        logits = engine.run(x)

    assert torch.equal(logits, answers(x))


def test_every_call_answers_with_a_new_tensor(artifact: Artifact) -> None:
    engine = opened(artifact)
    first = engine.run(images(2))

    second = engine.run(-images(2))

    assert torch.equal(first, answers(images(2)))
    assert torch.equal(second, -first)


def test_an_input_that_is_not_contiguous_is_read_as_what_it_means(artifact: Artifact) -> None:
    x = images(3).to(memory_format=torch.channels_last)

    assert torch.equal(opened(artifact).run(x), answers(x))


def test_the_engine_runs_on_its_own_stream_in_order_with_the_current_one(script: Script, artifact: Artifact) -> None:
    with opened(artifact) as engine:
        engine.run(images(2))

    assert script.streams == ["7 waits for 0", "execute on 7", "0 waits for 7", "7 is done"]


def test_the_provider_says_what_runs_where(artifact: Artifact) -> None:
    engine = opened(artifact)

    version = ".".join(sys.modules["tensorrt"].__version__.split(".")[:2])
    assert (engine.name, engine.provider) == ("tensorrt", f"TensorRT {version} on NVIDIA H200")


@pytest.mark.parametrize("batch_size", [0, 1, 9])
def test_a_batch_outside_the_profile_is_refused(artifact: Artifact, batch_size: int) -> None:
    with pytest.raises(RecipeError, match=f"a batch of {batch_size} is outside 2 to 8, which the engine was built for"):
        opened(artifact).run(images(batch_size))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            torch.zeros(2, 3, 9, 8),
            r"takes input \[b, 3, 8, 8\] float32 on cpu, not \[2, 3, 9, 8\] torch.float32",
        ),
        (torch.zeros(2, 3, 8, 8).double(), "not .* torch.float64 on cpu"),
        (torch.zeros(2, 3, 8, 8, device="meta"), "not .* on meta"),
    ],
)
def test_memory_that_the_engine_would_misread_is_refused(artifact: Artifact, x: torch.Tensor, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        opened(artifact).run(x)


def test_a_run_that_fails_says_what_the_log_says_of_it(script: Script, artifact: Artifact) -> None:
    engine = opened(artifact)
    for why in ("out of memory", "an illegal address"):
        script.run_error = why

        with pytest.raises(RecipeError, match=rf"cannot run an input of \[2, 3, 8, 8\]: {why}$"):
            engine.run(images(2))


def test_a_batch_size_must_run_once_before_it_is_captured(script: Script, artifact: Artifact) -> None:
    engine = opened(artifact)
    script.capturing = True
    with pytest.raises(RecipeError, match="run a batch of 3 once before you capture it"):
        engine.run(images(3))

    script.capturing = False
    engine.run(images(3))
    script.capturing = True

    assert torch.equal(engine.run(images(3)), answers(images(3)))


def test_a_context_that_was_captured_is_used_by_nobody_else(script: Script, artifact: Artifact) -> None:
    engine = opened(artifact)

    for capturing in (False, False, True, False, True, False):
        script.capturing = capturing
        engine.run(images(3))

    assert [script.contexts.index(each) for each in script.ran] == [0, 0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("built_for", "error", "message"),
    [
        (
            {"tensorrt": "10.1.0"},
            CheckpointError,
            r"built by version 10\.1\.0, and here is TensorRT .*export again",
        ),
        ({"platform": "Windows AMD64"}, CheckpointError, "was built on Windows AMD64, and this is"),
        (
            {"gpu": "NVIDIA A100"},
            MissingDependency,
            r"for NVIDIA A100 \(compute capability 9\.0\), and cuda:0 is",
        ),
        (
            {"gpu": None, "compute_capabilities": ["8.6", "8.9"]},
            MissingDependency,
            r"\(compute capability 8.6, 8.9\)",
        ),
        (
            {"gpu": None, "compute_capabilities": ["10.0+"]},
            MissingDependency,
            r"is NVIDIA H200 \(9\.0\); export again",
        ),
    ],
)
def test_an_engine_for_something_else_is_refused_before_it_is_loaded(
    script: Script, artifact: Artifact, built_for: dict[str, Any], error: type[Exception], message: str
) -> None:
    script.load_error = "it was loaded"
    artifact = dataclasses.replace(artifact, built_for=artifact.built_for | built_for)

    with pytest.raises(error, match=message):
        Engine(artifact, device=GPU)


def test_an_engine_for_all_later_gpus_runs_here(artifact: Artifact) -> None:
    artifact.built_for.update(gpu=None, compute_capabilities=["8.0+"])

    assert torch.equal(opened(artifact).run(images(2)), answers(images(2)))


def test_a_file_that_does_not_load_says_why(script: Script, artifact: Artifact) -> None:
    script.load_error = MISMATCH

    with pytest.raises(CheckpointError, match=r"net\.engine cannot be loaded: .*Version tag does not match\); export"):
        Engine(artifact, device=GPU)


def test_a_version_compatible_engine_needs_trust(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = engine_file(tmp_path, BuildSettings(version_compatible=True))
    artifact.built_for["tensorrt"] = "10.12.0"  # it may be of another version
    monkeypatch.delenv("CHASE_TRUST_CODE", raising=False)
    with pytest.raises(CheckpointError, match="to load it runs code out of it; .*CHASE_TRUST_CODE=1"):
        Engine(artifact, device=GPU)

    monkeypatch.setenv("CHASE_TRUST_CODE", "1")
    assert torch.equal(opened(artifact).run(images(1)), answers(images(1)))


def test_code_is_allowed_to_no_other_engine(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = engine_file(tmp_path, BuildSettings(version_compatible=True))
    artifact.built_for["version_compatible"] = False  # a sidecar that does not tell
    monkeypatch.setenv("CHASE_TRUST_CODE", "1")

    with pytest.raises(CheckpointError, match="engine host code is not allowed"):
        Engine(artifact, device=GPU)


@pytest.mark.parametrize(
    "facts",
    [{"input_shape": (3, 8, 9)}, {"input_name": "images"}, {"input_dtype": "float16"}, {"preprocessing": True}],
)
def test_an_engine_that_is_not_what_its_sidecar_says_is_refused(artifact: Artifact, facts: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"takes input \[b, 3, 8, 8\] float32 and gives logits \[b, 5\] float32"):
        Engine(dataclasses.replace(artifact, **facts), device=GPU)


def test_a_machine_can_be_asked_whether_engines_run_on_it(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    Engine.check()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingDependency, match="an engine runs on an NVIDIA GPU; torch finds none here"):
        Engine.check()


def test_the_cpu_is_refused(artifact: Artifact) -> None:
    with pytest.raises(RecipeError, match="runs on a CUDA device, not on cpu; choose device cuda"):
        Engine(artifact, device=CPU)


def test_without_a_gpu_nothing_is_loaded(script: Script, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(MissingDependency, match="is an engine, which runs on an NVIDIA GPU; torch finds none here$"):
        Engine(artifact, device=CPU)


@pytest.mark.parametrize(
    ("engine", "module", "extra"), [(Engine, "tensorrt", "tensorrt"), (RtxEngine, "tensorrt_rtx", "tensorrt-rtx")]
)
def test_without_the_package_the_user_is_told_its_name(
    engine: type[Engine], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    artifact = Artifact(path=Path("net.engine"), format=engine.formats[0], input_shape=SHAPE)

    with pytest.raises(MissingDependency, match=rf"pip install 'chase-sparse\[{extra}\]'"):
        engine(artifact, device=GPU)
