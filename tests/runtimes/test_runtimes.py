from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.errors import CheckpointError, MissingDependency, RecipeError, UnknownName
from chase.runtimes import RUNTIMES, format_of, load_source, open_runtime, runtimes_for
from chase.runtimes.base import reason, require, resolve_device, torch_settings
from chase.runtimes.onnxruntime import OnnxRuntime
from chase.runtimes.tensorrt import refuse
from chase.runtimes.torchscript import no_deprecation

SHAPE = (3, 4, 4)


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 5)).eval()


def images(count: int) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def write_onnx(model: nn.Module, path: Path) -> None:
    """The tiny network as ONNX, by hand: writing it with torch's exporter takes seconds."""
    onnx: Any = require("onnx", purpose="this test", install="onnx")
    helper = onnx.helper
    linear: Any = model[2]  # type: ignore[index]
    weights = [
        onnx.numpy_helper.from_array(linear.weight.detach().numpy(), "weight"),
        onnx.numpy_helper.from_array(linear.bias.detach().numpy(), "bias"),
    ]
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
    ]
    real = onnx.TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("input", real, ["batch", *SHAPE])]
    outputs = [helper.make_tensor_value_info("logits", real, ["batch", 5])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(proto, str(path))


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("artifacts")
    made = {
        "onnx": Artifact(path=folder / "tiny.onnx", format="onnx", input_shape=SHAPE),
        "torchscript": Artifact(path=folder / "tiny.ts", format="torchscript", input_shape=SHAPE),
    }
    write_onnx(tiny(), made["onnx"].path)
    with no_deprecation():
        traced = torch.jit.trace(tiny(), (images(2),))
        torch.jit.save(torch.jit.freeze(traced), str(made["torchscript"].path))
    for artifact in made.values():
        artifact.save()
    return made


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

    Artifact(path=path, format="torchscript", input_shape=SHAPE).save()
    found = load_source(str(path))
    assert isinstance(found, Artifact)
    assert format_of(found) == "torchscript"


def test_io_binding_gives_what_arrays_give(artifacts: dict[str, Artifact]) -> None:
    runtime = OnnxRuntime(artifacts["onnx"].path, device=torch.device("cpu"))
    x = images(4).to(memory_format=torch.channels_last)

    assert torch.equal(runtime._run_bound(x), runtime.run(x))


def test_onnxruntime_takes_the_number_of_threads_from_torch_or_from_the_caller(
    artifacts: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    path, cpu = artifacts["onnx"].path, torch.device("cpu")

    assert threads_of(OnnxRuntime(path, device=cpu)) == 2
    assert threads_of(OnnxRuntime(path, device=cpu, threads=1)) == 1


def threads_of(runtime: OnnxRuntime) -> int:
    return int(runtime._session.get_session_options().intra_op_num_threads)


def test_onnxruntime_refuses_a_wrong_input_by_its_shape(artifacts: dict[str, Artifact]) -> None:
    with (
        open_runtime(artifacts["onnx"]) as runtime,
        pytest.raises(RecipeError, match=r"cannot run an input of \[1, 3, 4, 5\] torch.float32; the model takes"),
    ):
        runtime.run(torch.zeros(1, 3, 4, 5))


def test_unknown_and_unfit_runtimes_are_refused(artifacts: dict[str, Artifact]) -> None:
    with pytest.raises(UnknownName, match="no runtime named 'onxruntime'; did you mean 'onnxruntime'"):
        open_runtime(artifacts["onnx"], runtime="onxruntime")
    with pytest.raises(RecipeError, match="eager cannot run a onnx; choose onnxruntime"):
        open_runtime(artifacts["onnx"], runtime="eager")
    with pytest.raises(RecipeError, match="no runtime takes the format 'tflite'"):
        runtimes_for("tflite")
    with pytest.raises(RecipeError, match="threads is 0"):
        open_runtime(tiny(), threads=0)


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
@pytest.mark.parametrize("content", ["truncated", "foreign"])
def test_a_broken_file_is_one_line(artifacts: dict[str, Artifact], tmp_path: Path, format: str, content: str) -> None:
    whole = artifacts[format].path.read_bytes()
    broken = Artifact(path=tmp_path / f"broken.{format}", format=format, input_shape=SHAPE)
    broken.path.write_bytes(whole[: len(whole) // 2] if content == "truncated" else b"not a model at all")
    broken.save()

    with pytest.raises(CheckpointError, match="is not a whole") as caught:
        open_runtime(broken.path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file: .*gone.onnx"):
        open_runtime(tmp_path / "gone.onnx")
    gone = Artifact(path=tmp_path / "gone.ts", format="torchscript", input_shape=SHAPE)
    with pytest.raises(CheckpointError, match=r"gone\.ts is not a whole TorchScript file"):
        open_runtime(gone)


def test_tensorrt_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Artifact(path=Path("model.engine"), format="tensorrt", input_shape=SHAPE)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'chase-sparse\[tensorrt\]'"):
        open_runtime(engine)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(MissingDependency, match="TensorRT is installed, but this version .*trtexec"):
        refuse()


def test_a_missing_package_is_named_with_its_pip_command(
    artifacts: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(MissingDependency, match="onnxruntime; run: pip install onnxruntime"):
        open_runtime(artifacts["onnx"])


class FakeSession:
    """A session that fell back to the CPU."""

    def __init__(self, path: str, **settings: Any) -> None:
        self.settings = settings

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


class FakeOptions:
    def add_session_config_entry(self, name: str, value: str) -> None:
        pass


@pytest.mark.parametrize(
    ("providers", "message"),
    [
        (["CPUExecutionProvider"], r"has no CUDAExecutionProvider; run: pip install 'chase-sparse\[gpu\]'"),
        (["CUDAExecutionProvider"], "runs tiny.onnx on CPUExecutionProvider, not on CUDAExecutionProvider"),
    ],
)
def test_onnxruntime_never_falls_back_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, providers: list[str], message: str
) -> None:
    fake: Any = types.ModuleType("onnxruntime")
    fake.get_available_providers = lambda: providers
    fake.InferenceSession, fake.SessionOptions = FakeSession, FakeOptions
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)

    with pytest.raises(MissingDependency, match=message):
        OnnxRuntime(Path("tiny.onnx"), device=torch.device("cuda", 0))


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
        assert backends.cudnn.conv.fp32_precision == "ieee"
    assert torch.get_num_threads() == 2
    assert (backends.cudnn.conv.fp32_precision, backends.cudnn.allow_tf32) == before

    with torch_settings():
        assert torch.get_num_threads() == 2


def test_a_reason_is_the_first_line_of_the_root_cause() -> None:
    outer = RuntimeError("outer")
    outer.__cause__ = ValueError("\n  the root\nwith details")

    assert reason(outer) == "the root"
    assert reason(ValueError()) == "ValueError"
    assert len(reason(ValueError("x" * 500))) == 200


def test_a_plug_in_runtime_is_found_by_its_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Echo:
        formats = ("echo",)

        def __call__(self, source: Any, *, device: torch.device, threads: int | None) -> Any:
            return source, device, threads

    monkeypatch.setitem(RUNTIMES, "echo", Echo())
    artifact = Artifact(path=tmp_path / "file", format="echo", input_shape=SHAPE)

    opened: Any = open_runtime(artifact, threads=3)
    assert opened == (artifact.path, torch.device("cpu"), 3)


def test_an_artifact_remembers_its_facts(artifacts: dict[str, Artifact]) -> None:
    sidecar = json.loads(artifacts["onnx"].sidecar.read_text())

    assert sidecar["path"] == "tiny.onnx"
    assert np.array_equal(sidecar["input_shape"], SHAPE)
