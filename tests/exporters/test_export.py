from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_exports import EXAMPLE, FACTS, exported_here, images, tiny
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.errors import ExportError, MissingDependency, OutputError, ParityError, RecipeError, UnknownName
from chase.exporters import EXPORTERS, Exporter, Gate
from chase.runtimes import open_runtime


class Raising(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            raise ValueError("no tracing today\nand a second line")
        return x.flatten(1)


class Answering(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return {"logits": x}


@pytest.mark.parametrize("name", ["model.onnx", "model.ts", "model.pt2", "model.xml"])
def test_a_file_answers_as_the_model_at_any_batch_size(name: str, tmp_path: Path) -> None:
    artifact = exported_here(tiny(), tmp_path / name, facts=FACTS)

    for batch in (1, 5):
        x = images(batch, seed=3)
        with open_runtime(artifact.path) as runtime:
            torch.testing.assert_close(runtime.run(x), tiny().eval()(x))
    assert Artifact.load(artifact.path) == artifact
    assert (artifact.input_shape, artifact.macs) == ((3, 8, 8), FACTS["macs"])
    assert artifact.parity["max_rel"] <= artifact.parity["gate"]["max_rel"]
    assert (artifact.parity["samples"], artifact.parity["of"], artifact.parity["because"]) == (8, "file", None)
    assert artifact.versions["torch"] == torch.__version__.split("+")[0]
    assert artifact.is_whole()
    expected = {artifact.path.name, artifact.sidecar.name, *artifact.files}
    assert {each.name for each in tmp_path.iterdir()} == expected


def test_exporting_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = tiny().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    exported_here(model, tmp_path / "model.ts")

    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_real_samples_and_a_gate_are_used(tmp_path: Path) -> None:
    artifact = exported_here(tiny(), tmp_path / "model.ts", samples=torch.rand(3, 3, 8, 8), gate=Gate(max_rel=0.25))

    assert (artifact.parity["samples"], artifact.parity["gate"]) == (3, {"max_rel": 0.25})


@pytest.mark.parametrize("name", ["model.onnx", "model.ts"])
def test_preprocessing_inside_takes_bytes_and_answers_with_probabilities(name: str, tmp_path: Path) -> None:
    artifact = exported_here(tiny(), tmp_path / name, facts=FACTS, preprocessing=True)
    levels = torch.randint(0, 256, (3, 8, 8, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(FACTS[key])[:, None, None] for key in ("mean", "std"))
    normalised = (levels.permute(0, 3, 1, 2) / 255 - mean) / std

    with open_runtime(artifact) as runtime:
        found = runtime.run(levels)

    torch.testing.assert_close(found, tiny().eval()(normalised).softmax(1))
    assert torch.equal(artifact.encode(normalised), levels)
    assert artifact.preprocessing


def test_preprocessing_needs_to_know_the_normalisation(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"needs a mean and a std for each of 3 channels, not \[\]"):
        exported_here(tiny(), tmp_path / "model.ts", preprocessing=True)


@pytest.fixture
def wrong_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TorchScript exporter that swaps two channels."""
    right = EXPORTERS["torchscript"].write

    def wrong(job: Any, path: Path) -> dict[str, Any]:
        before = job.model[6].weight.data
        job.model[6].weight.data = before[:, [1, 0, 2, 3, 4]]
        facts = right(job, path)
        job.model[6].weight.data = before
        return facts

    monkeypatch.setitem(EXPORTERS, "torchscript", Exporter(write=wrong, suffix=".ts", about="wrong"))


def test_a_wrong_export_leaves_no_file(wrong_exporter: None, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"model\.ts differs from its network by"):
        exported_here(tiny(), tmp_path / "model.ts")

    assert list(tmp_path.iterdir()) == []


def test_a_wrong_export_leaves_what_was_there(wrong_exporter: None, tmp_path: Path) -> None:
    (tmp_path / "model.ts").write_text("older")

    with pytest.raises(ParityError):
        exported_here(tiny(), tmp_path / "model.ts")

    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("model.ts", "older")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "model.bin"}, r"model.bin does not say its format; .*\.ts \(torchscript\), \.onnx \(onnx\)"),
        ({"precision": "fp61"}, "no precision named 'fp61'; did you mean 'fp16'"),
        ({"precision": "int8"}, "torchscript cannot hold int8; it takes fp32, fp16, bf16"),
        ({"keep_fp32": ["0"]}, "keep_fp32 is for reduced precisions, not fp32"),
        ({"opst": 20, "format": "onnx"}, "the exporter onnx has no setting 'opst'; did you mean 'opset'?"),
        ({"opset": 20}, "the exporter torchscript has no setting 'opset'"),
        ({"opset": 17, "format": "onnx"}, "opset 17 is outside 18 to 23 for fp32"),
        ({"opset": 20, "format": "onnx", "precision": "bf16"}, "opset 20 is outside 22 to 23 for bf16"),
        ({"facts": {"clases": ()}}, "no fact 'clases' to be given; did you mean 'classes'?"),
        ({"samples": torch.zeros(2, 3, 9, 9)}, r"samples of \[2, 3, 9, 9\] and an example of \[1, 3, 8, 8\]"),
        ({"samples": torch.zeros(0, 3, 8, 8)}, "pass at least one sample"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    path = tmp_path / arguments.pop("path", "model.ts")

    with pytest.raises(RecipeError, match=message):
        exported_here(tiny(), path, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no exporter named 'onxx'; did you mean 'onnx'?"):
        exported_here(tiny(), tmp_path / "model", format="onxx")


@pytest.mark.parametrize("name", ["model.ts", "model.onnx", "model.pt2"])
def test_a_model_that_cannot_be_traced_is_one_line(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=r"Raising: no tracing today \(in test_export\.py:\d+, forward\)$"):
        exported_here(Raising(), tmp_path / name)

    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


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
        exported_here(model, tmp_path / "model.ts")


@pytest.mark.parametrize(
    ("name", "function"), [("model.ts", "pathlib.Path.write_bytes"), ("model.onnx", "pathlib.Path.write_bytes")]
)
def test_a_full_disk_is_one_line(name: str, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(function, fail)

    with pytest.raises(OutputError, match=f"cannot write .*{name}: No space left on device"):
        exported_here(tiny(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_run_here_is_judged_by_its_graph_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*arguments: Any, **options: Any) -> None:
        raise MissingDependency("no GPU here")

    def write(job: Any, path: Path) -> dict[str, Any]:
        path.write_bytes(b"an engine for another machine")
        return {"opset": 20, "built_for": {"device": "cuda"}}

    engine = Exporter(write=write, suffix=".far", about="", through_onnx=True)
    monkeypatch.setitem(EXPORTERS, "far", engine)
    from chase.runtimes import RUNTIMES

    monkeypatch.setitem(RUNTIMES, "far", type("Far", (), {"formats": ("far",), "__call__": absent})())
    monkeypatch.setattr("chase.runtimes.resolve_device", torch.device)

    artifact = exported_here(tiny(), tmp_path / "model.far")

    assert (artifact.parity["of"], artifact.parity["because"]) == ("graph", "no GPU here")
    assert artifact.parity["max_rel"] <= artifact.parity["gate"]["max_rel"]
    assert json.loads(artifact.sidecar.read_text())["parity"]["of"] == "graph"


def test_the_example_may_hold_several_images(tmp_path: Path) -> None:
    artifact = exported_here(tiny(), tmp_path / "model.onnx", example=torch.cat([EXAMPLE] * 3))

    assert artifact.input_shape == (3, 8, 8)
