"""--round-to and --prune-skip: from the command line to the widths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Chase

from chase.checkpoint import load_model
from chase.slimming.widths import grid_from

TRAIN = ["train", "--recipe", "tiny.yaml", "--dry-run", "--json"]


def widths(answer: str) -> dict[str, tuple[int, int]]:
    found: dict[str, Any] = json.loads(answer)["widths"]
    return {name: (before, after) for name, (before, after) in found.items()}


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("8", 8),
        (" 8 ", 8),
        ("layer1.*=16,8", {"layer1.*": 16, "*": 8}),
        ("layer1.*=16 , fc = 1", {"layer1.*": 16, "fc": 1}),
        ("fc=4", {"fc": 4}),
        ("a=2,b=4,8", {"a": 2, "b": 4, "*": 8}),
    ],
)
def test_a_grid_is_read_as_it_is_written(text: str, grid: object) -> None:
    assert grid_from(text) == grid


def test_slim_keeps_each_layer_on_its_own_grid(chase: Chase, workspace: Path) -> None:
    fine = widths(chase("slim", "--round-to", "1", "--out", "fine.pt", "--json")[1])
    code, out, _ = chase("slim", "--round-to", "features.0=16,features.1*=6,1", "--out", "own.pt", "--json")

    assert code == 0
    ours = widths(out)
    for name, (dense, after) in ours.items():
        grid = 16 if name == "features.0" else 6 if name.startswith("features.1") else 1
        assert after == min(-(-fine[name][1] // grid) * grid, dense), name
    assert any(after > fine[name][1] for name, (_, after) in ours.items())
    state = load_model("own.pt").state_dict()
    assert {name: len(state[f"{name}.weight"]) for name in ours} == {name: after for name, (_, after) in ours.items()}
    x = torch.rand(4, 1, 8, 8)
    assert torch.allclose(load_model("own.pt")(x), load_model("fine.pt")(x), rtol=1e-4, atol=1e-5)


def test_a_layer_that_no_pattern_fits_has_no_grid(chase: Chase, workspace: Path) -> None:
    fine = widths(chase("slim", "--round-to", "1", "--out", "fine.pt", "--json")[1])

    ours = widths(chase("slim", "--round-to", "features.0=16", "--out", "own.pt", "--json")[1])

    assert {**ours, "features.0": None} == {**fine, "features.0": None}


@pytest.mark.parametrize("command", [["slim", "--out", "own.pt"], [*TRAIN]])
def test_a_pattern_that_fits_no_layer_is_refused(command: list[str], chase: Chase, workspace: Path) -> None:
    code, out, err = chase(*command, "--round-to", "feature.0=16,8")

    assert (code, out) == (2, "")
    assert "round_to: no layer matches 'feature.0'; did you mean 'features.0'?" in err
    assert not Path("own.pt").exists()


BAD = [
    ("eight", "'eight' is not a width grid; write a number, or numbers by layers"),
    ("", "'' is not a width grid"),
    ("8,", "'8,' is not a width grid"),
    ("fc=", "'fc=' is not a width grid"),
    ("fc=x,8", "'fc=x,8' is not a width grid"),
    ("-8", "'-8' is not a width grid"),
    ("2.5", "'2.5' is not a width grid"),
    ("0", "round_to must be a whole number of at least 1, not 0"),
    ("fc=0,8", "round_to for 'fc' must be a whole number of at least 1, not 0"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[repr(text) for text, _ in BAD])
@pytest.mark.parametrize("command", ["slim", "train", "run"])
def test_what_is_no_grid_is_refused_in_one_line(
    command: str, text: str, message: str, chase: Chase, empty: Path
) -> None:
    before = sorted(empty.rglob("*"))
    recipe = [] if command == "slim" else ["--recipe", "tiny.yaml"]

    code, out, err = chase(command, *recipe, f"--round-to={text}")

    assert (code, out) == (2, "")
    assert err.startswith("chase: ")
    assert message in err
    assert err.count("\n") == 1
    assert sorted(empty.rglob("*")) == before


def test_train_rounds_the_channels_that_leave(chase: Chase, empty: Path) -> None:
    plain = json.loads(chase(*TRAIN)[1])
    coarse = json.loads(chase(*TRAIN, "--round-to", "features.0=16,*=32", "--channel-sparsity", "0.3")[1])

    assert coarse["channel_sparsity"]["highest_reachable"] < plain["channel_sparsity"]["highest_reachable"]
    code, _, err = chase(*TRAIN, "--round-to", "64")
    assert code == 2
    assert "channel_sparsity 0.5 cannot be reached" in err


def test_train_writes_the_settings_into_the_recipe(chase: Chase, empty: Path) -> None:
    arguments = ["--round-to", "features.0=16,4", "--prune-skip", "--epochs", "1", "-o", "data.train=64", "--quiet"]

    code, _, err = chase("train", "--recipe", "tiny.yaml", *arguments, "--run", "runs/own")

    assert code == 0, err
    method = torch.load("runs/own/checkpoint.pt", weights_only=True)["recipe"]["method"]
    assert method["round_to"] == {"features.0": 16, "*": 4}
    assert method["prune_skip"] is True


def test_prune_skip_lets_coupled_channels_leave(chase: Chase, empty: Path) -> None:
    model = ["--model", "cifar-resnet20", "--channel-sparsity", "0.2", "--round-to", "1"]

    without = json.loads(chase(*TRAIN, *model)[1])
    coupled = json.loads(chase(*TRAIN, *model, "--prune-skip")[1])

    assert coupled["prunable_channels"] > without["prunable_channels"]
    stays = {group["name"]: group["stays_because"] for group in without["groups"]}
    assert stays["conv1"] == "meets a skip connection; use prune_skip"
    assert {group["name"]: group["stays_because"] for group in coupled["groups"]}["conv1"] is None


def test_they_belong_to_a_new_training(chase: Chase, workspace: Path) -> None:
    code, _, err = chase("train", "--resume", "--round-to", "4", "--prune-skip")

    assert code == 2
    assert "leave out method.round_to, method.prune_skip" in err
