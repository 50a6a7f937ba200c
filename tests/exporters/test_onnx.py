from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_exports import EXAMPLE, FACTS, exported_here, images, job_for, tiny
from torch import nn

from chase.errors import ExportError, MissingDependency, ParityError
from chase.exporters.onnx import onnx_bytes, onnx_proto, write_onnx
from chase.packages import require
from chase.runtimes import open_runtime

onnx = require("onnx", purpose="these tests", install="onnx")


@pytest.fixture(scope="module")
def proto() -> Any:
    return onnx_proto(job_for(tiny(), facts=FACTS), opset=19)[0]


def test_a_file_says_what_it_is(proto: Any) -> None:
    labels = {entry.key: entry.value for entry in proto.metadata_props}

    assert [entry.name for entry in (*proto.graph.input, *proto.graph.output)] == ["input", "logits"]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [entry.version for entry in proto.opset_import if not entry.domain] == [19]
    assert json.loads(labels["classes"]) == list(FACTS["classes"])
    assert json.loads(labels["std"]) == list(FACTS["std"])
    assert (labels["parent_sha256"], labels["widths_sha256"]) == (FACTS["parent_sha256"], FACTS["widths_sha256"])
    assert proto.producer_name == "chase"


def test_batch_norms_are_folded_and_no_weight_lies_outside(proto: Any) -> None:
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    assert all(not each.external_data for each in proto.graph.initializer)


def test_nodes_keep_the_names_of_their_layers(proto: Any) -> None:
    scopes = {key.value for node in proto.graph.node for key in node.metadata_props if key.key.endswith("name_scopes")}

    assert any("'6'" in scope for scope in scopes)  # the Linear


def test_a_job_is_exported_once_for_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_for(tiny())
    first = onnx_bytes(job)
    monkeypatch.setattr(torch.onnx, "export", None)

    assert onnx_bytes(job, opset=20) == first
    with pytest.raises(ExportError):
        onnx_bytes(job, opset=21)


def test_height_and_width_may_stay_open(tmp_path: Path) -> None:
    artifact = exported_here(tiny(), tmp_path / "model.onnx", dynamic_size=True)
    x = images(2, (3, 12, 10))

    with open_runtime(artifact) as runtime:
        torch.testing.assert_close(runtime.run(x), tiny().eval()(x))
    assert artifact.settings == {"dynamic_size": True}


def test_a_model_of_one_size_cannot_leave_it_open(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 4))

    with pytest.raises(ParityError, match="model.onnx cannot run a batch of 2"):
        exported_here(model, tmp_path / "model.onnx", dynamic_size=True)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxslim"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(MissingDependency, match=f"exporting to onnx: {package} .*pip install {package}") as caught:
        exported_here(tiny(), tmp_path / "model.onnx")
    assert caught.value.exit_code == 4


def test_an_opset_that_was_not_written_is_caught(monkeypatch: pytest.MonkeyPatch, proto: Any) -> None:
    monkeypatch.setattr("chase.exporters.onnx._exported", lambda model, example, opset, dynamic_size: proto)

    with pytest.raises(ExportError, match="torch wrote opset 19 instead of 21"):
        onnx_proto(job_for(tiny()), opset=21)


def test_an_invalid_graph_is_caught(monkeypatch: pytest.MonkeyPatch, proto: Any) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(proto)
    broken.graph.node[0].input[0] = "nowhere"
    monkeypatch.setattr("chase.exporters.onnx._simplified", lambda proto: broken)

    with pytest.raises(ExportError, match="onnx.checker refuses the exported file"):
        onnx_proto(job_for(tiny()), opset=19)


def test_weights_beyond_one_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chase.exporters.onnx._LIMIT_BYTES", 100)

    with pytest.raises(ExportError, match=r"the weights take \d+ bytes; an ONNX file holds less than 2 GB"):
        write_onnx(job_for(tiny()), tmp_path / "model.onnx")


def test_logging_is_as_it_was_after_an_export(capfd: pytest.CaptureFixture[str]) -> None:
    onnx_bytes(job_for(tiny(), EXAMPLE))

    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == 0
