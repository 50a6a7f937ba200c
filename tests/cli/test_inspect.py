"""chase inspect: what may leave, what stays and why, and the drawing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from commands import Chase

from chase.cli import inspect
from chase.cli.console import Console
from chase.exporters import EXPORTERS
from chase.slimming.groups import SKIP_REASON, Group, Slice

CIFAR = "cifar-resnet20"
REFUSED = [
    ([CIFAR, "--graph", "groups.png"], "--graph groups.png: the drawing is an SVG file; give it a name that ends in"),
    ([CIFAR, "--graph", "groups"], "--graph groups: the drawing is an SVG file"),
    *(
        ([f"model{each.suffix}", "--graph", "groups.svg"], f"model{each.suffix} holds no channel groups")
        for each in EXPORTERS.values()
    ),
    (["slim.pt", "--input", "3,32,32"], "--input is for a model by name; slim.pt says it itself"),
    (["model.onnx", "--num-classes", "7"], "--num-classes is for a model by name; model.onnx says it itself"),
]


def test_the_facts_of_an_exported_file_are_written_for_people(chase: Chase, workspace: Path) -> None:
    Path("runs/tiny/model.ts").rename("runs/tiny/model.odd")
    Path("runs/tiny/model.ts.json").rename("runs/tiny/model.odd.json")

    code, out, err = chase("inspect", "runs/tiny/model.odd")

    facts = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line}
    assert (code, err) == (0, "")
    assert facts["preprocessing"] == "no"
    assert facts["input_shape"] == "1, 8, 8"
    assert facts["files"] == facts["settings"] == facts["opset"] == "–"


@pytest.mark.parametrize("command", ["inspect", "eval", "bench"])
def test_a_file_that_was_changed_since_is_used_with_a_warning(chase: Chase, workspace: Path, command: str) -> None:
    import onnx

    graph = onnx.load("runs/tiny/model.onnx")
    graph.doc_string = "changed"
    onnx.save(graph, "runs/tiny/model.onnx")
    short = ("--batch-size", "1", "--seconds", "0.02") if command == "bench" else ()

    code, _, err = chase(command, "runs/tiny/model.onnx", *short)

    assert code == 0
    assert "runs/tiny/model.onnx is not the file that was exported (its SHA-256 has changed)" in err
    assert "SHA-256" not in chase(command, "runs/tiny/model.ts", *short)[2]


@pytest.fixture(scope="module")
def units() -> torch.Tensor:
    return torch.arange(4)


def row(table: str, name: str) -> str:
    """The row of a group in the table of groups, with single spaces."""
    (found,) = (line for line in table.partition("channel groups")[2].splitlines() if line.split()[:1] == [name])
    return " ".join(found.split())


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(case[0]) for case in REFUSED])
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    arguments: list[str], message: str, chase: Chase, empty: Path
) -> None:
    before = sorted(empty.rglob("*"))

    code, out, err = chase("inspect", *arguments)

    assert (code, out) == (2, "")
    assert message in err
    assert sorted(empty.rglob("*")) == before


def test_the_table_names_the_reason_and_what_leaves_with_a_channel(chase: Chase) -> None:
    code, out, _ = chase("inspect", CIFAR)

    assert code == 0
    assert row(out, "layer1.0.conv1") == "layer1.0.conv1 16 6 of 3 may leave"
    assert row(out, "layer2.0.conv2") == f"layer2.0.conv2 32 {4 * 5 + 4} of {4 * 2 + 4} skip {SKIP_REASON}"
    assert row(out, "fc") == "fc 10 2 of 1 pinned is an output of the model"
    assert "336 of 458 (73.36 %); with --prune-skip 448 (97.82 %)" in out


def test_with_prune_skip_only_the_output_stays(chase: Chase) -> None:
    code, out, _ = chase("inspect", CIFAR, "--prune-skip")

    assert code == 0
    assert SKIP_REASON not in out
    assert row(out, "conv1").endswith("may leave")
    assert "448 of 458 (97.82 %)" in out


def test_the_graph_has_a_box_for_every_group(chase: Chase, empty: Path) -> None:
    code, out, err = chase("inspect", CIFAR, "--graph", "pictures/groups.svg", "--json")

    names = [group["name"] for group in json.loads(out)["groups"]]
    root = ElementTree.parse(empty / "pictures/groups.svg").getroot()
    boxes = [element for element in root.iter() if element.get("class") == "group"]
    assert code == 0
    assert "drawn in pictures/groups.svg" in err
    assert [box[-3].text for box in boxes] == names
    assert root[0].text == CIFAR


def test_a_graph_that_cannot_be_written_is_an_error_of_one_line(chase: Chase, empty: Path) -> None:
    (empty / "taken").write_text("a file")

    code, _, err = chase("inspect", CIFAR, "--graph", "taken/groups.svg")

    assert code == 1
    assert "cannot write taken/groups.svg" in err.splitlines()[-1]


def test_the_json_holds_all_there_is_to_know_about_a_group(chase: Chase) -> None:
    result = json.loads(chase("inspect", CIFAR, "--json")[1])
    groups = {group["name"]: group for group in result["groups"]}
    norm = [{"tensor": f"layer1.0.bn1.{name}", "dim": 0, "reads": False, "positions": 16} for name in NORM]

    assert result["units"] == {
        "all": 458,
        "may_leave": 336,
        "may_leave_with_prune_skip": 448,
        "share": 336 / 458,
        "share_with_prune_skip": 448 / 458,
    }
    assert result["prunable_channels"] == 336
    tensors = groups["layer1.0.conv1"].pop("tensors")
    assert groups["layer1.0.conv1"] == {
        "name": "layer1.0.conv1",
        "width": 16,
        "held": {},
        "skip": False,
        "state": "leaves",
        "stays_because": None,
        "producers": ["layer1.0.conv1.weight"],
    }
    assert sorted(tensors, key=str) == sorted(
        [
            {"tensor": "layer1.0.conv1.weight", "dim": 0, "reads": False, "positions": 16},
            {"tensor": "layer1.0.conv2.weight", "dim": 1, "reads": True, "positions": 16},
            *norm,
        ],
        key=str,
    )
    assert (groups["conv1"]["state"], groups["conv1"]["stays_because"]) == ("skip", SKIP_REASON)


NORM = ("weight", "bias", "running_mean", "running_var")


def test_channels_that_are_held_are_counted_with_their_reasons(
    units: torch.Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    slices = (Slice("a.weight", 0, units, units),)
    part = Group("a", 4, slices, ("a.weight",), held={"meets a constant": 2, "is read by sort": 10})

    inspect._table(Console(), (part,), prune_skip=False)

    shown = capsys.readouterr().out
    assert row(shown, "a") == "a 4 1 of 1 partly held 2 held: meets a constant; 10 held: is read by sort"
    assert inspect._units((part,), prune_skip=False)["all"] == 16
    assert inspect._units((part,), prune_skip=False)["share"] == 0.25


def test_a_network_without_channels_has_no_share() -> None:
    found = inspect._units((), prune_skip=False)

    assert (found["all"], found["share"]) == (0, None)
    assert inspect._summary(found) == "none: no channel was found"


@pytest.mark.parametrize(
    ("name", "shape"), [("timm:test_resnet", [3, 160, 160]), ("torchvision:squeezenet1_1", [3, 224, 224])]
)
def test_models_of_other_libraries_have_their_own_input(name: str, shape: list[int], chase: Chase) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm")

    result: dict[str, Any] = json.loads(chase("inspect", name, "--json")[1])
    smaller = json.loads(chase("inspect", name, "--input", "3,64,64", "--json")[1])

    assert result["input_shape"] == shape
    assert smaller["input_shape"] == [3, 64, 64]
    assert smaller["macs"]["dense"] < result["macs"]["dense"]
    assert [group["name"] for group in smaller["groups"]] == [group["name"] for group in result["groups"]]
