"""Bad input: one line on stderr, the right exit code, and nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from commands import Chase

TRAIN = ["train", "--recipe", "tiny.yaml"]
REFUSED = [
    (["frobnicate"], 2, "frobnicate"),
    (["train", "--model", "vgg20", "--dry-run"], 2, "no model named 'vgg20'; did you mean 'vgg"),
    (["train", "--data", "digit", "--dry-run"], 2, "did you mean 'digits'?"),
    (["train", "--method", "chas", "--dry-run"], 2, "did you mean 'chase'?"),
    (["train", "--recipe", "digits-dem"], 2, "did you mean 'digits-demo'?"),
    (["train", "--recipe", "no/such.yaml"], 2, "no such recipe file: no/such.yaml"),
    ([*TRAIN, "-o", "method.sparsty=0.5"], 2, "method.sparsty: no such setting; did you mean 'sparsity'?"),
    ([*TRAIN, "-o", "methd.sparsity=0.5"], 2, "methd: no such setting; did you mean 'method'?"),
    ([*TRAIN, "-o", "sparsity"], 2, "'sparsity' is not an assignment"),
    ([*TRAIN, "--sparsity", "1.0"], 2, "method.sparsity must lie in [0, 1), not 1.0"),
    ([*TRAIN, "--sparsity", "-0.1"], 2, "method.sparsity must lie in [0, 1), not -0.1"),
    ([*TRAIN, "--channel-sparsity", "0.97"], 2, "the nearest is"),
    ([*TRAIN, "--epochs", "0"], 2, "training.epochs must be above 0, not 0"),
    ([*TRAIN, "--epochs", "many"], 2, "--epochs"),
    ([*TRAIN, "-o", "data.batch_size=0"], 2, "data.batch_size must be above 0"),
    (
        [*TRAIN, "-o", "training.amenable_thresholds=[-0.1]"],
        2,
        "training.amenable_thresholds must be at least 0, not -0.1",
    ),
    ([*TRAIN, "--device", "cuda:99"], 2, "'cuda:99' is not available here"),
    (["train", "--data", "cifar10", "-o", "data.root=nowhere"], 2, "download"),
    (["train", "--data", "nowhere/images"], 2, "nowhere/images"),
    (["train", "--model", "no.such.module:net"], 2, "cannot import 'no.such.module'"),
    ([*TRAIN, "--log", "tensorbord"], 2, "no logger named 'tensorbord'; did you mean 'tensorboard'?"),
    (["train", "--data", "nowhere/train-{0..1}.tar"], 2, "name those to test on too: -o data.test=PATH_OR_URL"),
    (["train", "--data", "pipe:cat x.tar", "-o", "data.test=y.tar"], 2, "runs a command; if you trust it"),
    (["train", "--resume"], 2, "there is no current run here"),
    (["train", "--resume", "--epochs", "9"], 2, "leave out training.epochs"),
    (["slim"], 2, "start one with `chase train`"),
    (["slim", "missing.pt"], 2, "no such file: missing.pt"),
    (["slim", "tiny.yaml"], 2, "cannot be read as a checkpoint"),
    (["export"], 2, "there is no current run here"),
    (["export", "--format", "onx"], 2, "did you mean 'onnx'?"),
    (["export", "--format", ","], 2, "--format names no format"),
    (["export", "--batch-sizes", "8:1:2"], 2, "MIN:OPT:MAX"),
    (["export", "--batch-sizes", "0:1:2"], 2, "MIN:OPT:MAX"),
    (["export", "--batch-sizes", "a:b:8"], 2, "'a:b:8' is not MIN:OPT:MAX"),
    (["export", "--format", "onnx", "--batch-sizes", "1:2:8"], 2, "onnx takes no batch_sizes"),
    (["export", "--format", "openvino", "--compress"], 2, "openvino takes no compress"),
    (["export", "--format", "onnx", "-o", "opst=21"], 2, "onnx takes no opst; did you mean 'opset'?"),
    (["export", "-o", "opset"], 2, "-o 'opset' is not KEY=VALUE"),
    (["export", "--precision", "fp61"], 2, "no precision named 'fp61'; did you mean 'fp16'"),
    (["export", "--format", "torchscript", "--precision", "int8"], 2, "torchscript cannot hold int8"),
    (["verify", "gone.onnx"], 2, "no such file: gone.onnx"),
    (["bench"], 2, "there is no current run here"),
    (["bench", "missing.onnx"], 2, "no such file: missing.onnx"),
    (["bench", "--against", "sparse"], 2, "known: dense, none"),
    (["bench", "--seconds", "0"], 2, "--seconds must be above 0"),
    (["bench", "--seconds", "nan"], 2, "--seconds must be above 0, not nan"),
    (["bench", "--batch-size", "0"], 2, "--batch-size must be at least 1, not 0"),
    (["bench", "--max-accuracy-drop", "-1"], 2, "--max-accuracy-drop must be at least 0, not -1.0"),
    (["run", "--recipe", "tiny.yaml", "--seconds", "-1"], 2, "--seconds must be above 0, not -1.0"),
    (["run", "--recipe", "tiny.yaml", "--batch-size", "-1"], 2, "--batch-size must be at least 1, not -1"),
    (["bench", "tiny.yaml"], 2, "tiny.yaml is no exported file of Chase"),
    (["eval", "tiny.yaml"], 2, "tiny.yaml is no exported file of Chase"),
    (["verify", "tiny.yaml"], 2, "tiny.yaml is no exported file of Chase"),
    (["export", "--format", "onnx", "-o", "opset=new"], 2, "onnx: opset: input should be a valid integer"),
    (["export", "--format", "onnx", "-o", "dynamic_size=perhaps"], 2, "dynamic_size: input should be a valid boolean"),
    (["slim", "."], 2, ". is a folder"),
    (["eval", "."], 2, ". is no exported file of Chase"),
    (["inspect", "."], 2, "no model named '.'"),
    (["inspect", "vgg8", "--num-classes", "0"], 2, "--num-classes must be at least 1, not 0"),
    (["inspect", "model.pt2"], 2, "no such file: model.pt2"),
    (["inspect", "model.xml"], 2, "no such file: model.xml"),
    (["inspect", "vgg8", "--input", "3x8x8"], 2, "is not C,H,W"),
    (["inspect", "missing.pt"], 2, "no such file: missing.pt"),
    (["eval", "missing.pt"], 2, "no such file: missing.pt"),
    (["recipes", "nothing"], 2, "no recipe named 'nothing'"),
    (["run", "--recipe", "tiny.yaml", "--format", "onx"], 2, "did you mean 'onnx'?"),
    (["--run", "runs/none", "slim"], 2, "no such run: runs/none"),
]


@pytest.mark.parametrize(("arguments", "code", "text"), REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_refused(arguments: list[str], code: int, text: str, chase: Chase, empty: Path) -> None:
    before = sorted(empty.rglob("*"))

    found, out, err = chase(*arguments)

    message = err.splitlines()[-1]
    assert (found, out) == (code, "")
    assert message.startswith("chase: ")
    assert text in message
    assert "Traceback" not in err
    assert sorted(empty.rglob("*")) == before


FINISHED = [
    (["train", "--run", "runs/tiny", "--recipe", "tiny.yaml"], 2, "already holds a run"),
    (["slim", "runs/tiny/slim.pt"], 2, "holds a slim network; this needs: masked"),
    (["slim", "--round-to", "0"], 2, "round_to must be a whole number of at least 1, not 0"),
    (["export", "runs/tiny/checkpoint.pt"], 2, "holds a masked network; this needs: slim, dense"),
    (["export", "--format", "tensorrt"], 4, "chase-sparse[tensorrt]"),
    (["export", "--precision", "int8", "--images", "0"], 2, "0 images are too few"),
    (["export", "--keep-fp32", "conv1"], 2, "keep_fp32 is for reduced precisions, not fp32"),
    (["export", "--precision", "fp16", "--keep-fp32", "fo*"], 2, "fo*"),
    (["verify", "runs/tiny/model.onnx", "--against", "gone.pt"], 2, "no such file: gone.pt"),
    (["verify", "runs/tiny/model.onnx", "--against", "runs/tiny/checkpoint.pt"], 2, "holds a masked network"),
    (["export", "--opset", "5"], 2, "opset 5"),
    (["export", "--format", "onnx,torchscript", "--out", "x.onnx"], 2, "cannot hold 2 formats"),
    (["export", "--out", "tiny.yaml/x.onnx"], 1, "cannot write tiny.yaml/x.onnx"),
    (["slim", "--out", "tiny.yaml/x.pt"], 1, "cannot write tiny.yaml/x.pt"),
    (["bench", "--runtime", "onnx"], 2, "did you mean 'onnxruntime'?"),
    (["eval", "runs/tiny/model.onnx", "--min-accuracy", "101"], 3, "is below --min-accuracy 101"),
    (["eval", "runs/tiny/model.onnx", "--runtime", "torchscript"], 2, "torchscript cannot run"),
    (["verify", "runs/tiny/model.onnx", "--runtime", "torchscript"], 2, "torchscript cannot run"),
    (["verify", "runs/tiny/slim.pt"], 2, "slim.pt is no exported file of Chase"),
    (["export", "-o", "calibration_method=foo"], 2, "no calibration method named 'foo'; known: minmax"),
    (["run", "--recipe", "tiny.yaml", "-o", "training.seed=9"], 2, "another recipe (training.seed is 1 there, 9 here)"),
]


@pytest.mark.parametrize(("arguments", "code", "text"), FINISHED, ids=[" ".join(case[0]) for case in FINISHED])
def test_refused_beside_a_finished_run(
    arguments: list[str], code: int, text: str, chase: Chase, workspace: Path
) -> None:
    found, _, err = chase(*arguments)

    message = err.splitlines()[-1]
    assert found == code
    assert message.startswith("chase: ")
    assert text in message


def test_export_and_bench_say_which_stage_is_missing(chase: Chase, workspace: Path) -> None:
    for artifact in workspace.glob("runs/tiny/model.*"):
        artifact.unlink()
    assert "has no exported artifact; run `chase export` first" in chase("bench")[2]

    (workspace / "runs/tiny/slim.pt").unlink()
    assert "has no slim.pt yet; run `chase slim` first" in chase("export")[2]
    assert "has no slim.pt; run `chase slim` first" in chase("bench")[2]


def test_a_truncated_checkpoint_is_refused(chase: Chase, workspace: Path) -> None:
    whole = (workspace / "runs/tiny/checkpoint.pt").read_bytes()
    (workspace / "half.pt").write_bytes(whole[: len(whole) // 2])

    code, _, err = chase("slim", "half.pt")

    assert code == 2
    assert "half.pt cannot be read as a checkpoint" in err


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_a_malicious_checkpoint_is_not_executed(chase: Chase, empty: Path) -> None:
    import torch

    torch.save({"format": "chase/1", "kind": "masked", "trap": Malicious(empty / "owned")}, empty / "evil.pt")

    code, _, err = chase("slim", "evil.pt")

    assert code == 2
    assert "not plain data" in err
    assert not (empty / "owned").exists()


def test_onnx_that_is_not_installed_is_named_with_the_command(
    chase: Chase, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)

    code, _, err = chase("export", "--format", "onnx", "--out", "x.onnx")

    assert code == 4
    assert "pip install onnx" in err
    assert not (workspace / "x.onnx").exists()
