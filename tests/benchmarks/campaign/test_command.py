"""The command: a process that keeps the time, and one that measures."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from chase.benchmarks.campaign.__main__ import AFTER_A_DEATH, AGAIN, WORKER, main, supervise
from chase.benchmarks.campaign.items import full, items, smoke
from chase.benchmarks.campaign.records import problems

CPU = torch.device("cpu")
ABSENT = (
    "jinja2 markupsafe onnx onnxruntime onnxscript onnxslim openvino plotly pydantic rich sklearn tensorrt timm typer"
)
BARE = f"""
import sys

sys.modules |= dict.fromkeys({[*ABSENT.split(), "yaml"]})
from chase.benchmarks.campaign.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


class Workers:
    """Processes that end as scripted, and the commands that started them."""

    def __init__(self, *codes: int | None) -> None:
        self.codes = iter(codes)
        self.commands: list[list[str]] = []
        self.timeouts: list[float | None] = []

    def run(self, command: Sequence[str], *, timeout: float | None, check: bool) -> subprocess.CompletedProcess[bytes]:
        """One process; None as its code is a hang."""
        self.commands.append(list(command))
        self.timeouts.append(timeout)
        code = next(self.codes)
        if code is None:
            raise subprocess.TimeoutExpired(command, timeout or 0)
        return subprocess.CompletedProcess(command, code)


def test_a_worker_that_ends_well_is_the_end() -> None:
    workers = Workers(0)

    assert supervise(["x", "--smoke"], minutes=None, run=workers.run) == 0
    assert workers.commands == [["x", "--smoke", WORKER, str(math.inf)]]
    assert workers.timeouts == [None]


@pytest.mark.parametrize("code", [-11, -9, AGAIN])
def test_a_fresh_worker_goes_on_after_a_death_in_the_time_that_is_left(code: int) -> None:
    workers, times = Workers(code, 0), iter([0.0, 10.0, 70.0])

    assert supervise(["x"], minutes=2, run=workers.run, now=lambda: next(times)) == 0

    assert workers.commands == [["x", WORKER, "110.0"], ["x", WORKER, "50.0", AFTER_A_DEATH]]
    assert workers.timeouts == [110.0, 50.0]


def test_a_worker_that_hangs_is_ended_when_the_time_is_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert supervise(["x"], minutes=1, run=Workers(None).run) == 0
    assert "the time is up" in capsys.readouterr().err


def test_an_error_is_handed_on_and_endless_deaths_end() -> None:
    assert supervise(["x"], minutes=None, run=Workers(4).run) == 4
    assert supervise(["x"], minutes=None, run=Workers(*[-11] * 50).run) == 1


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--item", "shapes"], 2, "no item named 'shapes'"),
        (["--device", "tpu"], 2, "no device named 'tpu'"),
        (["--device", "cuda:7"], 4, "torch finds"),
    ],
)
def test_bad_arguments_are_one_line(
    more: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path), *more, WORKER, "9"]) == code
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_items_have_names_of_their_own_and_the_valuable_ones_come_first() -> None:
    for scale in (full(CPU), smoke(CPU)):
        names = [item.name for item in items(scale, CPU)]
        assert len(names) == len(set(names))
        kinds = [item.kind for item in items(scale, CPU)]
        assert list(dict.fromkeys(kinds)) == ["shapes", "overhead", "training", "accuracy"]
    names = [item.name for item in items(full(CPU), CPU)]
    assert names[0] == "shapes-resnet50-eager-fp16"
    assert names[-8:-4] == [f"accuracy-cifar100-vgg19-{row}" for row in ("chase-0.5", "rigl", "chase-0", "dense")]
    assert [name for name in names if "overhead" in name] == [
        "overhead-resnet50",
        "overhead-vgg19",
        "overhead-resnet50-compiled",
        "overhead-vgg19-compiled",
    ]


def test_the_data_may_be_in_each_of_three_forms(tmp_path: Path) -> None:
    (tmp_path / "torchvision" / "cifar-100-python").mkdir(parents=True)

    def assignments(data: Path | None) -> Any:
        return items(full(CPU), CPU, data=data)[-1].settings["assignments"]

    assert assignments(None) == []
    assert assignments(tmp_path / "torchvision") == [f'data.root="{tmp_path / "torchvision"}"']
    assert assignments(tmp_path / "tree") == [f'data.name="{tmp_path / "tree"}"']
    assert assignments(tmp_path / "c.npz") == [f'data.name="{tmp_path / "c.npz"}"', "data.pad=4"]


def test_every_kind_of_item_works_here_and_writes_the_same_form(tmp_path: Path) -> None:
    chosen = (
        "shapes-vgg8-eager-fp32",
        "shapes-vgg8-eager-tf32",
        "overhead-vgg8",
        "training-cifar-resnet20-prune-skip",
        "accuracy-cifar100-vgg19-rigl",
    )
    command = ["--out", str(tmp_path), "--smoke", "--device", "cpu", *(f"--item={name}" for name in chosen)]

    assert main([*command, WORKER, "600"]) == 0

    records = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in chosen}
    for name, record in records.items():
        assert problems(record) == [], name
        assert record["error"] is None
        assert record["command"][3:] == command
    eager, tf32, overhead, training, accuracy = records.values()
    assert {(row["artifact"], row["batch_size"]) for row in eager["rows"]} == {
        (f"vgg8-{shape}", size) for shape in ("dense", "half") for size in (1, 2)
    }
    assert eager["left_out"] == ["vgg8 on eager+cuda-graph: CUDA graphs are for NVIDIA GPUs, not for cpu"]
    assert tf32["rows"] == []
    assert len(overhead["rows"]) == 1
    assert accuracy["rows"][0]["recipe"]["method"]["name"] == "rigl"
    by_variant = {(row["channel_sparsity"], row["variant"]): row["macs"] for row in training["rows"]}
    dense = by_variant[0.0, "dense"]["dense"]
    assert by_variant[0.5, "masked"]["gpu_supported"] == dense
    assert by_variant[0.5, "compacted"]["gpu_supported"] < by_variant[0.5, "compacted-to8"]["gpu_supported"] < dense
    assert by_variant[0.0, "compacted"]["gpu_supported"] == dense
    assert sorted(path.name for path in tmp_path.glob("runs/*")) == []
    summary = json.loads((tmp_path / "campaign.json").read_text())
    expected = {name: "left out" if "tf32" in name else "done" for name in chosen}
    assert {each["item"]: each["outcome"] for each in summary["items"]} == expected


def test_torch_and_torchvision_are_enough(tmp_path: Path) -> None:
    command = ["--out", str(tmp_path), "--smoke", "--device", "cpu", "--item=overhead-vgg8"]
    command += ["--item=shapes-vgg8-onnx-onnxruntime-fp32", "--item=accuracy-cifar100-vgg19-dense", WORKER, "600"]

    done = subprocess.run([sys.executable, "-c", BARE, *command], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "campaign.json").read_text())
    assert {each["item"]: each["outcome"] for each in summary["items"]} == {
        "overhead-vgg8": "done",
        "shapes-vgg8-onnx-onnxruntime-fp32": "left out",
        "accuracy-cifar100-vgg19-dense": "failed",
    }
    assert any("onnxruntime" in words for words in summary["left_out"])
    assert any(words.startswith("accuracy-") and "yaml" in words for words in summary["left_out"])
