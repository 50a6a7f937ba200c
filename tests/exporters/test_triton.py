"""Triton model repositories: what is in the folder, and whether Triton's own message classes take the config."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_exports import EXAMPLE, FACTS, images, job_for, tiny
from torch import Tensor

from chase.artifact import Artifact
from chase.errors import ExportError, MissingDependency, RecipeError
from chase.exporters import EXPORTERS, Exporter
from chase.exporters.job import Job
from chase.exporters.preprocessing import Preprocessed
from chase.exporters.triton import BACKENDS, text, write_triton
from chase.runtimes import open_runtime

INNER = {"onnxruntime": "onnx", "tensorrt": "tensorrt", "pytorch": "torchscript", "openvino": "openvino"}


def model_config() -> Any:
    """Triton's own message class, from the client's file alone: the package around it needs gRPC."""
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs tritonclient")
    file = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


def parsed(content: str) -> dict[str, Any]:
    """A config as Triton reads it; raises on a field that it does not have."""
    from google.protobuf import json_format, text_format

    message = text_format.Parse(content, model_config()())
    fields: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return fields


def files(folder: Path) -> set[str]:
    return {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()}


def job(**fields: Any) -> Job:
    return job_for(tiny(), **({"facts": FACTS} | fields))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Stands in for the exporters inside: notes what they were asked for, and writes one byte."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def writer(name: str) -> Any:
        def write(job: Job, path: Path, *, batch_sizes: Any = None, opset: int = 20) -> dict[str, Any]:
            asked.append((name, {"batch_sizes": batch_sizes, "opset": opset}))
            path.write_bytes(b"x")
            return {"opset": opset, "files": ("model.bin",)} | ({"batch_sizes": batch_sizes} if batch_sizes else {})

        return write

    for name in INNER.values():
        known = EXPORTERS[name]
        stand_in = Exporter(write=writer(name), suffix=known.suffix, about="", precisions=known.precisions)
        monkeypatch.setitem(EXPORTERS, name, stand_in)
    return asked


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("preprocessing", [False, True])
def test_triton_takes_the_config_of_every_backend(
    backend: str, preprocessing: bool, tmp_path: Path, written: list[Any]
) -> None:
    facts = FACTS | {"preprocessing": preprocessing}
    given = job(facts=facts)
    if preprocessing:
        model = Preprocessed(tiny().eval(), FACTS["mean"], FACTS["std"])
        given = job_for(model, torch.zeros(1, 8, 8, 3, dtype=torch.uint8), samples=EXAMPLE, facts=facts)

    write_triton(given, tmp_path / "r", backend=backend)

    config = parsed((tmp_path / "r/model/config.pbtxt").read_text())
    batch = ["-1"] if backend == "openvino" else []
    names = ("INPUT__0", "OUTPUT__0") if backend == "pytorch" else ("input", "logits")
    if preprocessing and backend != "pytorch":
        names = ("input", "probabilities")
    assert (config["name"], config["backend"]) == ("model", backend)
    assert config["input"] == [
        {"name": names[0], "data_type": "TYPE_UINT8", "dims": [*batch, "8", "8", "3"]}
        if preprocessing
        else {"name": names[0], "data_type": "TYPE_FP32", "dims": [*batch, "3", "8", "8"]}
    ]
    assert config["output"] == [
        {"name": names[1], "data_type": "TYPE_FP32", "dims": [*batch, "4"], "label_filename": "labels.txt"}
    ]
    assert config["version_policy"] == {"latest": {"num_versions": 1}}
    kinds = {"tensorrt": "KIND_GPU", "openvino": "KIND_CPU"}
    assert config["instance_group"][0].get("kind", "KIND_AUTO") == kinds.get(backend, "KIND_AUTO")  # it is the zero
    assert written[0][0] == INNER[backend]


def test_the_folder_holds_all_that_triton_reads(tmp_path: Path, written: list[Any]) -> None:
    classes = ("a cat", "dog\nor wolf", "eel", "føx")
    facts = write_triton(
        job(facts=FACTS | {"classes": classes}), tmp_path / "r", backend="pytorch", name="birds", version=3
    )

    assert files(tmp_path / "r") == {"birds/config.pbtxt", "birds/labels.txt", "birds/3/model.pt"}
    labels = (tmp_path / "r/birds/labels.txt").read_text(encoding="utf-8")
    assert labels.splitlines() == ["a cat", "dog or wolf", "eel", "føx"]
    assert (facts["files"], facts["batch_sizes"]) == ((), (1, 8, 32))
    assert facts["settings"]["inner_path"] == "birds/3/model.pt"
    assert facts["settings"]["inner_format"] == "torchscript"
    assert json.loads(json.dumps(facts["settings"])) == facts["settings"]


def test_without_class_names_there_are_no_labels(tmp_path: Path, written: list[Any]) -> None:
    write_triton(job(facts={}), tmp_path / "r")

    config = parsed((tmp_path / "r/model/config.pbtxt").read_text())
    assert config["output"] == [{"name": "logits", "data_type": "TYPE_FP32", "dims": ["4"]}]
    assert files(tmp_path / "r") == {"model/config.pbtxt", "model/1/model.onnx"}


def test_every_setting_reaches_the_config(tmp_path: Path, written: list[Any]) -> None:
    write_triton(
        job(precision="fp16"),
        tmp_path / "r",
        max_batch_size=16,
        preferred_batch_sizes=(4, 8),
        max_queue_delay_us=250,
        instances=2,
        kind="gpu",
        accelerator="tensorrt",
        versions_kept=5,
        inner={"opset": 19},
    )

    config = parsed((tmp_path / "r/model/config.pbtxt").read_text())
    assert config["max_batch_size"] == 16
    assert config["dynamic_batching"] == {"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": "250"}
    assert config["instance_group"] == [{"count": 2, "kind": "KIND_GPU"}]
    assert config["version_policy"] == {"latest": {"num_versions": 5}}
    accelerator = {"name": "tensorrt", "parameters": {"precision_mode": "FP16"}}
    assert config["optimization"] == {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}
    zeros = {"data_type": "TYPE_FP32", "dims": ["3", "8", "8"], "zero_data": True}
    assert config["model_warmup"] == [
        {"name": f"batch of {size}", "batch_size": size, "inputs": {"input": zeros}} for size in (1, 4, 8, 16)
    ]
    assert written == [("onnx", {"batch_sizes": None, "opset": 19})]


def test_warm_up_can_be_left_out(tmp_path: Path, written: list[Any]) -> None:
    write_triton(job(), tmp_path / "r", warmup=False)

    assert "model_warmup" not in parsed((tmp_path / "r/model/config.pbtxt").read_text())


def test_what_is_not_gathered_takes_any_batch(tmp_path: Path, written: list[Any]) -> None:
    facts = write_triton(job(), tmp_path / "r", backend="openvino")

    config = parsed((tmp_path / "r/model/config.pbtxt").read_text())
    assert config.keys().isdisjoint({"max_batch_size", "dynamic_batching"})
    zeros = {"data_type": "TYPE_FP32", "dims": ["1", "3", "8", "8"], "zero_data": True}
    assert config["model_warmup"] == [{"name": "batch of 1", "batch_size": 1, "inputs": {"input": zeros}}]
    assert facts["batch_sizes"] is None


def test_an_engine_is_built_for_the_batches_that_triton_sends(tmp_path: Path, written: list[Any]) -> None:
    write_triton(job(), tmp_path / "a", backend="tensorrt", max_batch_size=16, preferred_batch_sizes=(4,))
    write_triton(job(), tmp_path / "b", backend="tensorrt", inner={"batch_sizes": (1, 8, 64)})

    assert [asked["batch_sizes"] for _, asked in written] == [(1, 4, 16), (1, 8, 64)]
    for sizes in ((1, 4, 8), (2, 4, 32)):
        with pytest.raises(
            RecipeError, match=f"takes batches of {sizes[0]} to {sizes[2]}, but Triton is to send 1 to 32"
        ):
            write_triton(job(), tmp_path / f"c{sizes}", backend="tensorrt", inner={"batch_sizes": sizes})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "onnxruntim"}, "no backend named 'onnxruntim'; did you mean 'onnxruntime'?"),
        ({"name": "a/b"}, "the name 'a/b' cannot be a model's folder"),
        ({"name": ".."}, "cannot be a model's folder"),
        ({"instances": 0}, "instances is 0; it must be 1 or more"),
        ({"instances": "many"}, "triton.instances: .*, not 'many'"),
        ({"version": 0}, "version is 0"),
        ({"max_queue_delay_us": -1}, "max_queue_delay_us is -1; it must be 0 or more"),
        ({"max_batch_size": 0}, "max_batch_size is 0; it must be 1 or more"),
        ({"preferred_batch_sizes": (8, 4)}, r"preferred_batch_sizes \[8, 4\] must rise and lie within 1 to 32"),
        ({"preferred_batch_sizes": (64,)}, r"\[64\] must rise and lie within 1 to 32"),
        ({"kind": "tpu"}, "onnxruntime does not run on 'tpu'; choose auto or cpu or gpu"),
        ({"kind": "cpu", "backend": "tensorrt"}, "tensorrt does not run on 'cpu'; choose gpu"),
        ({"accelerator": "cuda"}, "onnxruntime has no accelerator 'cuda'; onnxruntime has tensorrt"),
        ({"accelerator": "tensorrt", "backend": "pytorch"}, "pytorch has no accelerator 'tensorrt'"),
        ({"backend": "openvino", "max_batch_size": 8}, "openvino backend cannot gather requests into batches"),
        ({"inner": {"opst": 20}}, "the exporter onnx has no setting 'opst'; did you mean 'opset'?"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(
    settings: dict[str, Any], message: str, tmp_path: Path, written: list[Any]
) -> None:
    with pytest.raises(RecipeError, match=message):
        write_triton(job(), tmp_path / "r", **settings)
    assert written == []
    assert not (tmp_path / "r").exists()


def test_a_precision_that_the_inside_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="torchscript cannot hold int8; it takes fp32, fp16, bf16"):
        write_triton(job(precision="int8"), tmp_path / "r", backend="pytorch")
    with pytest.raises(RecipeError, match="the accelerator tensorrt takes fp32, fp16, int8, int8-fp16, not bf16"):
        write_triton(job(precision="bf16"), tmp_path / "r", accelerator="tensorrt")


def test_what_the_inside_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Exporter(write=lambda job, path: {}, suffix=".x", about="", needs={"no_such_package": "no-such-package"})
    monkeypatch.setitem(EXPORTERS, "onnx", absent)

    with pytest.raises(MissingDependency, match="exporting to onnx: no_such_package .*; run: pip install no-such"):
        write_triton(job(), tmp_path / "r")


@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch"])
def test_the_file_inside_answers_as_the_network(backend: str, tmp_path: Path) -> None:
    facts = write_triton(job(), tmp_path / "r.triton", backend=backend)
    artifact = Artifact(path=tmp_path / "r.triton", format="triton", input_shape=(3, 8, 8), **facts)
    artifact.save()

    inner = Artifact.load(artifact.path).inner()

    x: Tensor = images(3)
    assert (inner.format, inner.path) == (INNER[backend], artifact.path / facts["settings"]["inner_path"])
    assert inner.inner() == inner
    with open_runtime(inner) as runtime:
        torch.testing.assert_close(runtime.run(x), tiny().eval()(x))


def test_a_network_that_cannot_be_traced_is_one_line(tmp_path: Path) -> None:
    class Raising(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
                raise ValueError("no tracing today")
            return x.flatten(1)

    with pytest.raises(ExportError, match="no tracing today"):
        write_triton(job_for(Raising()), tmp_path / "r", backend="pytorch")


def test_the_text_is_protobufs() -> None:
    from google.protobuf import text_format

    message = {"name": 'a "b"', "max_batch_size": 2, "model_warmup": [{"name": "x", "count": 1}, {"name": "y"}]}

    found = text_format.Parse(text(message), model_config()())

    assert found.name == 'a "b"'
    assert [each.name for each in found.model_warmup] == ["x", "y"]


def test_a_wrong_field_is_noticed() -> None:
    from google.protobuf import text_format

    for wrong in ({"max_batchsize": 2}, {"instance_group": {"kind": "KIND_TPU"}}, {"dynamic_batching": {"delay": 1}}):
        with pytest.raises(text_format.ParseError):
            parsed(text(wrong))
