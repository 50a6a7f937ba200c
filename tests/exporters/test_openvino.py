from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from export_networks import NETWORKS, distances
from small_exports import job_for, tiny

from chase.errors import ExportError, MissingDependency
from chase.exporters.job import Job
from chase.exporters.openvino import write_openvino

openvino: Any = pytest.importorskip("openvino", reason="openvino is not installed")
SLOW = [name if name == "odd" else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]


@pytest.fixture(scope="module")
def job() -> Job:
    """The tiny network, whose ONNX graph is made once."""
    return job_for(tiny())


@pytest.mark.parametrize("name", SLOW)
def test_a_model_answers_as_its_network(name: str, tmp_path: Path) -> None:
    assert max(distances(name, write_openvino, tmp_path / "net.xml", "openvino")) < 1e-5


def test_weights_stay_in_fp32_and_the_batch_open(job: Job, tmp_path: Path) -> None:
    facts = write_openvino(job, tmp_path / "net.xml")

    assert facts == {"opset": 20, "files": ("net.bin",)}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["net.bin", "net.xml"]
    model = openvino.Core().read_model(str(tmp_path / "net.xml"))
    types = {node.get_element_type().get_type_name() for node in model.get_ops() if node.get_type_name() == "Constant"}
    assert "f32" in types
    assert "f16" not in types
    assert [model.input(0).get_any_name(), model.output(0).get_any_name()] == ["input", "logits"]
    assert str(model.input(0).partial_shape) == "[?,3,8,8]"


def test_what_openvino_cannot_read_is_one_line(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        def read_model(self, content: bytes) -> Any:
            raise RuntimeError("OpenVINO does not support the following ONNX operations: Strange\nand so on")

    monkeypatch.setattr(openvino, "Core", Core)

    with pytest.raises(
        ExportError, match="OpenVINO cannot read the ONNX graph: OpenVINO does not support .*: Strange$"
    ):
        write_openvino(job, tmp_path / "net.xml")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)

    with pytest.raises(
        MissingDependency, match=r"exporting to OpenVINO needs .* pip install 'chase-sparse\[openvino\]'"
    ):
        write_openvino(job_for(tiny()), tmp_path / "net.xml")
