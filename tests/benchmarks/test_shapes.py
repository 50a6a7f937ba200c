from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from chase.benchmarks import table15
from chase.benchmarks.cells import CPU, GPU, Cell, able_runtimes
from chase.benchmarks.layers import rows as layer_rows
from chase.benchmarks.schema import problems
from chase.benchmarks.shapes import Reduced, Shape, batch_sizes, main, shapes
from chase.errors import ChaseError


@functools.cache
def resnets() -> dict[str, Shape]:
    """ResNet-50 dense, with Table 15's widths, and these rounded up to 8."""
    found, _ = shapes("resnet50", ("table15", "table15-to8"))
    return {shape.name.removeprefix("resnet50-"): shape for shape in found}


def convolutions(model: nn.Module) -> dict[str, tuple[int, int]]:
    named = model.named_modules()
    return {name: (each.in_channels, each.out_channels) for name, each in named if isinstance(each, nn.Conv2d)}


def test_table_15_states_the_paper_s_channel_sparsity() -> None:
    assert f"{table15.channel_sparsity():.2%}" == "40.00%"


def test_table_15_leaves_the_macs_that_the_paper_states() -> None:
    macs = resnets()["table15"].counts.macs

    assert 2 * macs.dense == pytest.approx(8.178e9, rel=1e-4)
    assert macs.gpu_supported / macs.dense == pytest.approx(0.6777, abs=5e-5)


def test_the_slim_network_has_the_widths_of_table_15_and_whole_skip_connections() -> None:
    dense, slim = (convolutions(resnets()[name].model) for name in ("dense", "table15"))

    assert {f"{name}.weight": out for name, (_, out) in slim.items()}.items() >= table15.widths().items()
    for name, (_, out) in slim.items():
        if f"{name}.weight" not in table15.widths():
            assert out == dense[name][1]


def test_27_of_the_28_widths_that_shrank_are_flagged_as_unaligned() -> None:
    dense, slim = (convolutions(resnets()[name].model) for name in ("dense", "table15"))
    shrunk = {name for name in slim if slim[name][1] < dense[name][1]}
    odd = {name for name, width in slim.items() if name in shrunk and width[1] % 8}

    times = dict.fromkeys(slim, 1.0)
    found = layer_rows(times, dict.fromkeys(slim, "Conv2d"), dict.fromkeys(slim, 1), slim)
    flagged = {row["layer"] for row in found if row["aligned"] is False}

    assert (len(odd), len(shrunk)) == (27, 28)
    assert odd <= flagged
    assert flagged - odd == {name for name, width in slim.items() if name != "conv1" and width[0] % 8} - odd


def test_rounded_up_widths_are_multiples_and_their_additions_are_zero() -> None:
    raw, even = (resnets()[name] for name in ("table15", "table15-to8"))

    assert all(width[1] % 8 == 0 for width in convolutions(even.model).values())
    assert even.counts.macs.gpu_supported > even.counts.macs.theoretical > raw.counts.macs.gpu_supported
    assert even.counts.macs.gpu_supported / raw.counts.macs.gpu_supported == pytest.approx(1.023, abs=1e-3)


def test_half_of_every_group_of_a_vgg_is_gone() -> None:
    (dense, half), _ = shapes("vgg19")

    widths = zip(convolutions(dense.model).values(), convolutions(half.model).values(), strict=True)
    assert all(out == full // 2 for (_, full), (_, out) in widths)
    assert half.counts.macs.dense / half.counts.macs.gpu_supported == pytest.approx(3.98, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_reduced_network_takes_and_gives_float32_and_leaves_its_source(dtype: torch.dtype) -> None:
    layer = nn.Linear(4, 3)
    x = torch.randn(2, 4)

    answer = Reduced(layer, dtype)(x)

    assert answer.dtype == layer.weight.dtype == torch.float32
    assert torch.equal(answer, answer.to(dtype).float())
    assert torch.allclose(answer, layer(x), atol=0.1)


def test_rows_of_one_name_and_runtime_differ_in_nothing_else() -> None:
    for cells in (CPU, GPU):
        named = [(cell.suffix, runtime) for cell in cells for runtime in cell.runtimes]
        assert len(named) == len(set(named))
    assert Cell("module", (), "fp16", channels_last=True).suffix == " fp16 channels-last"


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (Cell("module", ("eager", "eager+cuda-graph"), "tf32"), ["TF32 is for NVIDIA GPUs"] * 2),
        (Cell("module", ("eager", "eager+cuda-graph")), ["CUDA graphs are for NVIDIA GPUs"]),
        (Cell("tensorrt", ("tensorrt",)), ["tensorrt"]),
    ],
)
def test_what_cannot_work_here_is_named_before_anything_is_made(cell: Cell, words: list[str]) -> None:
    left_out: list[str] = []

    able = able_runtimes(cell, torch.device("cpu"), "net", left_out)

    assert len(able) + len(left_out) == len(cell.runtimes)
    assert [word in text for word, text in zip(words, left_out, strict=True)] == [True] * len(words)


def test_batch_sizes_are_those_of_the_device() -> None:
    assert batch_sizes(torch.device("cpu")) == (1, 2, 32)
    assert batch_sizes(torch.device("cuda")) == (1, 2, 8, 32, 128, 512)
    assert batch_sizes(torch.device("cuda"), smoke=True) == (1, 2)


def test_the_command_writes_a_report_that_compares_with_dense(tmp_path: Path) -> None:
    path = tmp_path / "shapes.json"

    main(["--json", str(path), "--network", "vgg19", "--format", "module", "--batch-size", "1", "--seconds", "0.01"])

    content = json.loads(path.read_text())
    assert problems(content) == []
    dense, half = content["rows"]
    assert (dense["artifact"], half["artifact"]) == ("vgg19-dense", "vgg19-half")
    assert dense["speedup_vs_dense"] is None
    assert half["speedup_vs_dense"]["baseline"] == "vgg19-dense"
    assert half["speedup_vs_dense"]["mac_ratio"] == pytest.approx(half["mac_ratio"])
    assert half["settings"]["input_shape"] == [3, 32, 32]
    assert content["environment"]["left_out"] == []


def test_what_cannot_be_measured_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: object, **settings: object) -> None:
        raise ChaseError("no room")

    monkeypatch.setattr("chase.benchmarks.shapes.bench", fails)

    with pytest.raises(SystemExit):
        main(["--json", str(tmp_path / "a.json"), "--network", "vgg19", "--format", "module", "--batch-size", "2"])

    assert "nothing could be measured: vgg19 on eager, batch size 2: no room" in capsys.readouterr().err
