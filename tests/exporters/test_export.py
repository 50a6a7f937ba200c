from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.errors import ExportError, MissingDependency, OutputError, ParityError, RecipeError, UnknownName
from chase.exporters import EXPORTERS, export, suffix_of
from chase.exporters.onnx import write_onnx
from chase.runtimes import open_runtime
from chase.runtimes.base import require

EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
FACTS = {
    "classes": ("cat", "dog", "eel", "fox"),
    "mean": (0.5, 0.4, 0.3),
    "std": (0.2, 0.2, 0.1),
    "parent_sha256": "ab" * 32,
    "macs": {"theoretical": 1, "gpu_supported": 2, "dense": 3},
}


def tiny() -> nn.Module:
    """With a BatchNorm that has seen data, so that folding it matters."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(5, 4))
    model(torch.randn(16, 3, 8, 8) * 2 + 1)
    return model


class Raising(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            raise ValueError("no tracing today\nand a second line")
        return x.flatten(1)


class Answering(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return {"logits": x}


@pytest.fixture(scope="module")
def onnx_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return export(tiny(), path, example=EXAMPLE, facts=FACTS, opset=19)


def assert_artifact_answers_as_the_model(artifact: Artifact) -> None:
    x = torch.randn(5, 3, 8, 8)
    with open_runtime(artifact.path) as runtime:
        torch.testing.assert_close(runtime.run(x), tiny().eval()(x))
    assert Artifact.load(artifact.path) == artifact
    assert artifact.input_shape == (3, 8, 8)
    assert artifact.parity["max_rel"] <= artifact.parity["tolerance"]
    assert artifact.parity["samples"] == 8
    assert artifact.versions["torch"] == torch.__version__.split("+")[0]


def test_onnx_answers_as_the_model_at_any_batch_size(onnx_artifact: Artifact) -> None:
    assert_artifact_answers_as_the_model(onnx_artifact)
    assert onnx_artifact.opset == 19
    assert onnx_artifact.macs == FACTS["macs"]
    assert sorted(each.name for each in onnx_artifact.path.parent.iterdir()) == ["model.onnx", "model.onnx.json"]


def test_an_onnx_file_says_what_it_is(onnx_artifact: Artifact) -> None:
    onnx = require("onnx", purpose="this test", install="onnx")
    proto = onnx.load(str(onnx_artifact.path))
    labels = {entry.key: entry.value for entry in proto.metadata_props}

    assert [entry.name for entry in (*proto.graph.input, *proto.graph.output)] == ["input", "logits"]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert proto.producer_name == "chase"
    assert labels["classes"] == '["cat", "dog", "eel", "fox"]'
    assert labels["mean"] == "[0.5, 0.4, 0.3]"
    assert labels["parent_sha256"] == "ab" * 32
    assert '"onnx"' in labels["versions"]


def test_torchscript_answers_as_the_model_and_leaves_it_alone(tmp_path: Path) -> None:
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    artifact = export(model, str(tmp_path / "model.ts"), example=EXAMPLE)

    assert_artifact_answers_as_the_model(artifact)
    assert (artifact.format, artifact.opset) == ("torchscript", None)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_real_samples_and_a_tolerance_are_used(tmp_path: Path) -> None:
    samples = torch.rand(3, 3, 8, 8)

    artifact = export(tiny(), tmp_path / "model.ts", example=EXAMPLE, samples=samples, tolerance=0.25)

    assert (artifact.parity["samples"], artifact.parity["tolerance"]) == (3, 0.25)


@pytest.fixture
def wrong_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TorchScript exporter that swaps two channels."""
    right = EXPORTERS["torchscript"]

    def wrong(model: Any, path: Path, **arguments: Any) -> dict[str, Any]:
        model[6].weight.data = model[6].weight.data[:, [1, 0, 2, 3, 4]]
        return right(model, path, **arguments)

    monkeypatch.setitem(EXPORTERS, "torchscript", lambda model, path, **kw: wrong(_copy(model), path, **kw))


def _copy(model: nn.Module) -> nn.Module:
    copy = tiny().eval()
    copy.load_state_dict(model.state_dict())
    return copy


def test_a_wrong_export_leaves_no_file(wrong_exporter: None, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"model\.ts differs .* so it was not kept"):
        export(tiny(), tmp_path / "model.ts", example=EXAMPLE)

    assert list(tmp_path.iterdir()) == []


def test_a_wrong_export_leaves_what_was_there(wrong_exporter: None, tmp_path: Path) -> None:
    (tmp_path / "model.ts").write_text("older")

    with pytest.raises(ParityError):
        export(tiny(), tmp_path / "model.ts", example=EXAMPLE)

    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("model.ts", "older")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "model.bin"}, r"model.bin does not say its format; .*\.ts \(torchscript\), \.onnx \(onnx\)"),
        ({"precision": "fp16"}, "precision 'fp16' is not supported; only fp32 in this version"),
        ({"opst": 20, "format": "onnx"}, "the exporter onnx has no option 'opst'; did you mean 'opset'?"),
        ({"opset": 20}, "the exporter torchscript has no option 'opset'; it has none"),
        ({"opset": 17, "format": "onnx"}, "opset 17 is outside 18 to 23"),
        ({"facts": {"clases": ()}}, "no fact 'clases' to be given; did you mean 'classes'?"),
        ({"samples": torch.zeros(2, 3, 9, 9)}, r"samples of \[2, 3, 9, 9\] and an example of \[1, 3, 8, 8\]"),
        ({"samples": torch.zeros(0, 3, 8, 8)}, "pass at least one sample"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    path = tmp_path / arguments.pop("path", "model.ts")

    with pytest.raises(RecipeError, match=message):
        export(tiny(), path, example=EXAMPLE, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no exporter named 'onxx'; did you mean 'onnx'?"):
        export(tiny(), tmp_path / "model", example=EXAMPLE, format="onxx")


@pytest.mark.parametrize("name", ["model.ts", "model.onnx"])
def test_a_model_that_cannot_be_traced_is_one_line(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match="Raising: no tracing today$"):
        export(Raising(), tmp_path / name, example=EXAMPLE)

    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == 0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(3, 3), r"Linear cannot run the example \[1, 3, 8, 8\]"),
        (nn.Conv2d(3, 3, 1), r"Conv2d answers with \[1, 3, 8, 8\]; it must be one tensor \[b, classes\]"),
        (Answering(), "Answering answers with dict"),
    ],
)
def test_a_model_of_another_kind_is_refused(model: nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        export(model, tmp_path / "model.ts", example=EXAMPLE)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(MissingDependency, match=f"{package}; run: pip install onnx onnxscript") as caught:
        export(tiny(), tmp_path / "model.onnx", example=EXAMPLE)
    assert caught.value.exit_code == 4


def test_tensorrt_is_listed_and_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="this version of Chase does not build or run engines yet"):
        export(tiny(), tmp_path / "model.engine", example=EXAMPLE)


def test_an_opset_that_was_not_written_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnx_artifact: Artifact
) -> None:
    monkeypatch.setattr(
        "chase.exporters.onnx._write",
        lambda model, path, example, opset: path.write_bytes(onnx_artifact.path.read_bytes()),
    )

    with pytest.raises(ExportError, match="torch wrote opset 19 instead of 21"):
        write_onnx(tiny(), tmp_path / "model.onnx", example=EXAMPLE, facts={}, opset=21)


def test_an_invalid_onnx_file_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chase.exporters.onnx._write", lambda model, path, example, opset: path.write_bytes(b""))

    with pytest.raises(ExportError, match="onnx.checker refuses the exported file"):
        write_onnx(tiny(), tmp_path / "model.onnx", example=EXAMPLE, facts={})


def test_weights_beyond_one_onnx_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chase.exporters.onnx._LIMIT_BYTES", 100)

    with pytest.raises(ExportError, match=r"the weights take \d+ bytes; an ONNX file holds less than 2 GB"):
        write_onnx(tiny(), tmp_path / "model.onnx", example=EXAMPLE, facts={})


@pytest.mark.parametrize(
    ("name", "function"), [("model.ts", "pathlib.Path.write_bytes"), ("model.onnx", "torch.onnx.export")]
)
def test_a_full_disk_is_one_line(name: str, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(function, fail)

    with pytest.raises(OutputError, match=f"cannot write .*{name}: No space left on device"):
        export(tiny(), tmp_path / name, example=EXAMPLE)
    assert list(tmp_path.iterdir()) == []


def test_every_format_has_a_suffix_and_one_from_outside_its_name() -> None:
    assert [suffix_of(name) for name in ("onnx", "torchscript", "tensorrt", "mine")] == [
        ".onnx",
        ".ts",
        ".engine",
        ".mine",
    ]
