"""What is written beside a plan and said of it, by TensorRT for RTX itself and by the fakes of TensorRT."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from fake_tensorrt import VERSIONS
from onnx_graphs import SHAPE, network
from scripted_tensorrt import install
from torch import nn

from chase.artifact import Artifact
from chase.errors import MissingDependency, RecipeError
from chase.exporters.job import Job
from chase.exporters.parity import Gate
from chase.exporters.preprocessing import Preprocessed
from chase.exporters.tensorrt import write_tensorrt, write_tensorrt_rtx
from chase.runtimes.tensorrt import Engine


def job(**fields: Any) -> Job:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 37, 3), nn.BatchNorm2d(37), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model, x = nn.Sequential(*layers, nn.Linear(37, 5)).eval(), torch.randn(4, *SHAPE)
    return Job(model=model, example=x[:1], samples=x, gate=Gate(max_rel=1e-4), **fields)


@pytest.fixture
def ready_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that is there at once, where the way to it does not matter."""
    proto = onnx.load_from_string(network())
    monkeypatch.setattr("chase.exporters.onnx.onnx_proto", lambda job, opset: (proto, {"opset": opset or 22}))


def test_an_engine_is_written_with_its_layers_and_its_facts(tmp_path: Path) -> None:
    path = tmp_path / "net.rtx.engine"

    facts = write_tensorrt_rtx(job(), path, batch_sizes=(1, 2, 4), compute_capabilities=("sm86", "sm89"))

    artifact = Artifact(path=path, format="tensorrt-rtx", input_shape=SHAPE, **facts)
    assert artifact.files == ("net.rtx.engine.layers.json",)
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, *artifact.files]
    layers = json.loads((tmp_path / artifact.files[0]).read_text())["Layers"]
    engine = artifact.built_for.pop("engine")
    assert engine["layers"] == len(layers) < engine["parsed_layers"]
    assert engine["size_bytes"] == path.stat().st_size
    assert engine["build_s"] > 0
    assert (artifact.batch_sizes, artifact.opset) == ((1, 2, 4), 20)
    assert artifact.settings["compute_capabilities"] == ["sm86", "sm89"]
    assert (artifact.built_for["gpu"], artifact.built_for["compute_capabilities"]) == (None, ["8.6", "8.9"])


@pytest.mark.usefixtures("ready_graph")
def test_the_facts_are_what_the_sidecar_gives_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "11.4")
    path = tmp_path / "net.engine"
    facts = write_tensorrt(job(), path, timing_cache=tmp_path / "cache", opset=21)
    artifact = Artifact(path=path, format="tensorrt", input_shape=SHAPE, **facts)

    artifact.save()

    assert Artifact.load(path) == artifact
    assert artifact.settings["timing_cache"] == str(tmp_path / "cache")
    assert artifact.opset == 21


@pytest.mark.usefixtures("ready_graph")
@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_written_can_be_opened_and_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    install(monkeypatch, version)
    path = tmp_path / "net.engine"
    facts = write_tensorrt(job(), path, batch_sizes=(1, 4, 4))

    artifact = Artifact(path=path, format="tensorrt", input_shape=SHAPE, **facts)
    with Engine(artifact, device=torch.device("cuda")) as engine:
        engine.device = torch.device("cpu")
        assert engine.run(torch.ones(4, *SHAPE)).shape == (4, 5)


@pytest.mark.usefixtures("ready_graph")
def test_a_cancelled_export_leaves_no_file(tmp_path: Path) -> None:
    def interrupt(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tensorrt_rtx(job(progress=interrupt), tmp_path / "net.engine")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("ready_graph")
def test_a_log_without_a_layer_table_is_said_to_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chase.exporters.tensorrt.build.logged", lambda table: None)

    facts = write_tensorrt_rtx(job(), tmp_path / "net.engine")

    assert (facts["files"], facts["built_for"]["engine"]["layers"]) == ((), None)
    assert [file.name for file in tmp_path.iterdir()] == ["net.engine"]


def test_what_is_missing_or_wrong_is_said_before_the_network_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chase.exporters.onnx.onnx_proto", None)  # so that calling it fails
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    with pytest.raises(MissingDependency, match=r"pip install 'chase-sparse\[tensorrt\]'"):
        write_tensorrt(job(), tmp_path / "net.engine")
    with pytest.raises(RecipeError, match="batch sizes 8:4:2"):
        write_tensorrt_rtx(job(), tmp_path / "net.engine", batch_sizes=(8, 4, 2))
    for targets in (("sm90",), "sm86,sm90"):
        with pytest.raises(RecipeError, match="does not build for 'sm90'"):
            write_tensorrt_rtx(job(), tmp_path / "net.engine", compute_capabilities=targets)
    with pytest.raises(RecipeError, match=r"tensorrt-rtx\.workspace_mb: input should be a valid integer.*not 'much'"):
        write_tensorrt_rtx(job(), tmp_path / "net.engine", workspace_mb="much")  # type: ignore[arg-type]


def test_a_network_with_its_preprocessing_builds(tmp_path: Path) -> None:
    network = Preprocessed(job().model, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)).eval()
    images = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    given = Job(model=network, example=images, samples=images, gate=Gate(), facts={"preprocessing": True})

    write_tensorrt_rtx(given, tmp_path / "net.engine")

    layers = json.loads((tmp_path / "net.engine.layers.json").read_text())["Layers"]
    ports = [tensor for layer in layers for tensor in layer["Inputs"] + layer["Outputs"]]
    assert {"Name": "input", "Dimensions": [-1, 8, 8, 3], "Datatype": "UInt8"} in ports
    assert {"Name": "probabilities", "Dimensions": [-1, 5], "Datatype": "Float"} in ports
