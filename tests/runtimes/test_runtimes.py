from __future__ import annotations

import json
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_artifacts import SHAPE, artifact, images, onnx_file, tiny, torchscript_file

from chase.artifact import Artifact
from chase.errors import CheckpointError, MissingDependency, RecipeError, UnknownName, reason
from chase.runtimes import RUNTIMES, available, format_of, load_source, open_runtime, runtimes_for
from chase.runtimes.base import check_input, resolve_device, tf32_allowed, torch_settings
from chase.tracing import trace


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("artifacts")
    return {"onnx": onnx_file(folder), "torchscript": torchscript_file(folder)}


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_an_artifact_answers_as_its_model(artifacts: dict[str, Artifact], format: str, batch_size: int) -> None:
    x = images(batch_size)

    with open_runtime(artifacts[format].path) as runtime:
        torch.testing.assert_close(runtime.run(x), tiny()(x))


@pytest.mark.parametrize(
    ("format", "name", "provider"),
    [("onnx", "onnxruntime", "CPUExecutionProvider"), ("torchscript", "torchscript", "cpu")],
)
def test_the_format_chooses_the_runtime(artifacts: dict[str, Artifact], format: str, name: str, provider: str) -> None:
    with open_runtime(str(artifacts[format].path)) as runtime:
        assert (runtime.name, runtime.provider, runtime.device) == (name, provider, torch.device("cpu"))


def test_eager_runs_a_copy_in_eval_mode() -> None:
    model = tiny().train()

    with open_runtime(model) as runtime:
        first, second = runtime.run(images(2)), runtime.run(images(2))

    assert torch.equal(first, second)
    assert torch.equal(first, tiny()(images(2)))
    assert model.training
    assert (runtime.name, runtime.provider) == ("eager", "cpu")


def test_a_network_runs_eagerly() -> None:
    network: Any = types.SimpleNamespace(model=tiny())

    with open_runtime(network) as runtime:
        assert torch.equal(runtime.run(images(1)), tiny()(images(1)))


def test_a_pt_file_is_read_as_a_checkpoint_unless_it_has_a_sidecar(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkpoint: Any = types.ModuleType("chase.checkpoint")
    checkpoint.load_network = lambda path: ("network", path)
    monkeypatch.setitem(sys.modules, "chase.checkpoint", checkpoint)
    path = tmp_path / "slim.pt"
    path.touch()

    read: Any = load_source(path)
    assert read == ("network", path)

    artifact(path, "torchscript")
    found = load_source(str(path))
    assert isinstance(found, Artifact)
    assert format_of(found) == "torchscript"


def test_a_triton_repository_is_run_by_the_file_inside(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    (tmp_path / "repository" / "1").mkdir(parents=True)
    file = shutil.copy(artifacts["onnx"].path, tmp_path / "repository" / "1" / "model.onnx")
    inner = {"inner_path": str(Path(file).relative_to(tmp_path / "repository")), "inner_format": "onnx", "inner": {}}
    source = artifact(tmp_path / "repository", "triton", settings=inner)

    assert format_of(source) == "onnx"
    with open_runtime(source.path) as runtime:
        assert runtime.name == "onnxruntime"
        torch.testing.assert_close(runtime.run(images(2)), tiny()(images(2)))


def test_unknown_and_unfit_runtimes_are_refused(artifacts: dict[str, Artifact]) -> None:
    with pytest.raises(UnknownName, match="no runtime named 'onxruntime'; did you mean 'onnxruntime'"):
        open_runtime(artifacts["onnx"], runtime="onxruntime")
    with pytest.raises(RecipeError, match="eager cannot run files of the format onnx; choose onnxruntime or"):
        open_runtime(artifacts["onnx"], runtime="eager")
    with pytest.raises(RecipeError, match="no runtime takes the format 'tflite'"):
        runtimes_for("tflite")
    with pytest.raises(RecipeError, match="threads is 0"):
        open_runtime(tiny(), threads=0)


def test_options_of_other_runtimes_are_refused(artifacts: dict[str, Artifact]) -> None:
    with pytest.raises(RecipeError, match="the runtime eager has no option 'cache'; it has none"):
        open_runtime(tiny(), cache="folder")
    with pytest.raises(RecipeError, match="has no option 'cash'; did you mean 'cache'"):
        open_runtime(artifacts["onnx"], runtime="onnxruntime-tensorrt", cash="folder")


def test_a_cuda_graph_needs_a_gpu(artifacts: dict[str, Artifact]) -> None:
    for source in (tiny(), artifacts["onnx"]):
        with pytest.raises(RecipeError, match="cuda_graph needs a CUDA device, not cpu; choose device cuda"):
            open_runtime(source, cuda_graph=True)


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
@pytest.mark.parametrize("content", ["truncated", "foreign"])
def test_a_broken_file_is_one_line(artifacts: dict[str, Artifact], tmp_path: Path, format: str, content: str) -> None:
    whole = artifacts[format].path.read_bytes()
    broken = artifact(tmp_path / f"broken.{format}", format)
    broken.path.write_bytes(whole[: len(whole) // 2] if content == "truncated" else b"not a model at all")

    with pytest.raises(CheckpointError, match="is not a whole") as caught:
        open_runtime(broken.path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file: .*gone.onnx"):
        open_runtime(tmp_path / "gone.onnx")
    for format in ("torchscript", "onnx", "torch-export", "openvino"):
        with pytest.raises(CheckpointError, match=r"gone is not a whole"):
            open_runtime(artifact(tmp_path / "gone", format))


@pytest.mark.parametrize(
    ("shape", "dtype", "facts", "message"),
    [
        ((1, 3, 4, 5), "float32", {}, r"takes an input of \[batch, 3, 4, 4\] float32, not \[1, 3, 4, 5\] float32"),
        ((1, 4, 4, 4), "float32", {}, r"\[batch, 3, 4, 4\] float32, not \[1, 4, 4, 4\]"),
        ((3, 4, 4), "float32", {}, r"not \[3, 4, 4\] float32"),
        ((0, 3, 4, 4), "float32", {}, r"not \[0, 3, 4, 4\] float32"),
        ((2, 3, 4, 4), "float64", {}, r"float32, not \[2, 3, 4, 4\] float64"),
        ((2, 3, 4, 4), "float32", {"preprocessing": True}, r"takes an input of \[batch, 4, 4, 3\] uint8, not"),
        ((1, 3, 4, 4), "float32", {"batch_sizes": (2, 4, 8)}, "takes batches of 2 to 8, not 1; export again"),
        ((9, 3, 4, 4), "float32", {"batch_sizes": (2, 4, 8)}, "takes batches of 2 to 8, not 9; export again"),
        ((1, 2, 9, 9), "float32", {"settings": {"dynamic_size": True}}, r"\[batch, 3, any, any\] float32, not"),
    ],
)
def test_an_input_that_the_file_does_not_take_is_refused(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, facts: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        check_input(torch.zeros(shape, dtype=getattr(torch, dtype)), artifact(tmp_path / "file", "onnx", **facts))


@pytest.mark.parametrize(
    ("shape", "dtype", "facts"),
    [
        ((7, 3, 4, 4), torch.float32, {}),
        ((2, 3, 4, 4), torch.float32, {"batch_sizes": (2, 4, 8)}),
        ((8, 3, 4, 4), torch.float32, {"batch_sizes": (2, 4, 8)}),
        ((1, 4, 4, 3), torch.uint8, {"preprocessing": True}),
        ((1, 3, 9, 7), torch.float32, {"settings": {"dynamic_size": True}}),
    ],
)
def test_an_input_that_the_file_takes_passes(
    tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype, facts: dict[str, Any]
) -> None:
    check_input(torch.zeros(shape, dtype=dtype), artifact(tmp_path / "file", "onnx", **facts))


def test_an_input_on_another_device_is_refused(artifacts: dict[str, Artifact]) -> None:
    for source in (tiny(), artifacts["onnx"]):
        with (
            open_runtime(source) as runtime,
            pytest.raises(RecipeError, match="runs on cpu; this input is on meta"),
        ):
            runtime.run(images(1).to("meta"))


def test_an_input_that_a_module_does_not_take_is_one_line() -> None:
    with (
        open_runtime(tiny()) as runtime,
        pytest.raises(RecipeError, match=r"eager cannot run an input of \[1, 3, 4, 5\] float32: .*mat1 and mat2"),
    ):
        runtime.run(torch.zeros(1, 3, 4, 5))


def test_a_missing_package_is_named_with_its_pip_command(
    artifacts: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package in ("onnxruntime", "openvino", "executorch.runtime"):
        monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(MissingDependency, match="onnxruntime; run: pip install onnxruntime"):
        open_runtime(artifacts["onnx"])
    for name in ("openvino", "executorch"):
        with pytest.raises(MissingDependency, match=rf"run: pip install 'chase-sparse\[{name}\]'"):
            open_runtime(artifact(tmp_path / "file", name))


def test_what_is_available_is_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        formats = ("broken",)

        @staticmethod
        def check() -> None:
            raise MissingDependency("the moon is not there; run: pip install moon")

    for name in list(RUNTIMES):
        if name not in ("eager", "onnxruntime"):
            monkeypatch.delitem(RUNTIMES, name)
    monkeypatch.setitem(RUNTIMES, "broken", Broken)

    found = available()

    assert list(found) == ["eager", "onnxruntime", "onnxruntime on cuda", "broken"]
    assert found["eager"] is found["onnxruntime"] is None
    assert found["broken"] == "the moon is not there; run: pip install moon"


def test_devices_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("cuda") == torch.device("cuda", 0)
    with pytest.raises(MissingDependency, match="no device cuda:1: torch finds 1 CUDA GPUs"):
        resolve_device("cuda:1")
    with pytest.raises(RecipeError, match="no runtime works on 'meta'"):
        resolve_device("meta")
    with pytest.raises(RecipeError, match="no device named 'gpu'"):
        resolve_device("gpu")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_settings_hold_while_a_runtime_is_open(two_threads: None) -> None:
    backends: Any = torch.backends
    before = backends.cudnn.conv.fp32_precision, backends.cudnn.allow_tf32

    with open_runtime(tiny(), threads=1):
        assert torch.get_num_threads() == 1
        assert not backends.cudnn.allow_tf32
        assert backends.cudnn.conv.fp32_precision != "tf32"
        assert backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.get_num_threads() == 2
    assert (backends.cudnn.conv.fp32_precision, backends.cudnn.allow_tf32) == before

    with torch_settings():
        assert torch.get_num_threads() == 2


def test_tf32_is_allowed_by_a_block_and_by_runtimes_opened_inside_it() -> None:
    backends: Any = torch.backends
    before = backends.cudnn.allow_tf32, backends.cuda.matmul.fp32_precision

    with torch_settings(tf32=True), open_runtime(tiny(), threads=1):
        assert tf32_allowed()
        assert (backends.cudnn.allow_tf32, backends.cuda.matmul.fp32_precision) == (True, "tf32")
        with torch_settings(tf32=False):
            assert not tf32_allowed()
            assert (backends.cudnn.allow_tf32, backends.cuda.matmul.fp32_precision) == (False, "ieee")
        assert (backends.cudnn.allow_tf32, backends.cuda.matmul.fp32_precision) == (True, "tf32")

    assert not tf32_allowed()
    assert (backends.cudnn.allow_tf32, backends.cuda.matmul.fp32_precision) == before


def test_a_reason_is_the_first_line_of_the_root_cause() -> None:
    outer = RuntimeError("outer")
    outer.__cause__ = ValueError("\n  the root\nwith details")

    assert reason(outer) == "the root"
    assert reason(ValueError()) == "ValueError"
    assert len(reason(ValueError("x" * 500))) == 200


def test_a_plug_in_runtime_is_found_by_its_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Echo:
        formats = ("echo",)

        def __call__(self, source: Any, *, device: torch.device, threads: int | None, pitch: int = 0) -> Any:
            return source, device, threads, pitch

    monkeypatch.setitem(RUNTIMES, "echo", Echo())
    source = artifact(tmp_path / "file", "echo")

    opened: Any = open_runtime(source, threads=3, pitch=5)
    assert opened == (source, torch.device("cpu"), 3, 5)


def test_an_artifact_remembers_its_facts(artifacts: dict[str, Artifact]) -> None:
    sidecar = json.loads(artifacts["onnx"].sidecar.read_text())

    assert sidecar["path"] == "tiny.onnx"
    assert np.array_equal(sidecar["input_shape"], SHAPE)


def test_a_network_can_be_traced_while_torch_is_held_to_fp32() -> None:
    before = torch.backends.cudnn.allow_tf32
    with torch_settings(1):
        assert not torch.backends.cudnn.allow_tf32
        trace(tiny(), images(1))
    assert torch.backends.cudnn.allow_tf32 == before
