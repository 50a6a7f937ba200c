"""bench --compare: other networks in the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Chase

from chase.artifact import Artifact
from chase.benchmarks.page.facts import Facts
from chase.benchmarks.page.roles import Role, Roles
from chase.benchmarks.page.verdict import judge
from chase.benchmarks.report import Report
from chase.checkpoint import load_network
from chase.cli import export
from chase.cli.images import splits
from chase.counting import count

QUICK = ("--batch-size", "1", "--seconds", "0.02", "--json")
RIVALS = ("mlp", "self@4", "dense@6", "elsewhere/trained.onnx")
OPTIONS = tuple(word for name in RIVALS for word in ("--compare", name))


@pytest.fixture
def elsewhere(workspace: Path) -> Path:
    """The workspace without TorchScript, and with a file that was trained in another folder."""
    for name in ("model.ts", "model.ts.json"):
        (workspace / "runs/tiny" / name).unlink()
    (workspace / "elsewhere").mkdir()
    for name in ("slim.pt", "model.onnx", "model.onnx.json"):
        source = (workspace / "runs/tiny" / name).read_bytes()
        (workspace / "elsewhere" / name.replace("model", "trained")).write_bytes(source)
    return workspace


def test_rivals_are_measured_in_the_same_run_and_exported_once(
    chase: Chase, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = chase("bench", *QUICK, *OPTIONS)

    assert code == 0, err
    rows = {row["artifact"]: row for row in json.loads(out)["rows"]}
    made = [f"{name}{file}" for name in RIVALS[:3] for file in ("", " model.onnx")]
    assert rows.keys() == {*OWN, *made, RIVALS[3]}
    assert {name for name, row in rows.items() if row["settings"].get("rival")} == {*made, RIVALS[3]}
    _speeds(rows)
    _accuracies(rows)
    _roles(elsewhere / "runs/tiny/bench.json")

    assert Artifact.load(elsewhere / "runs/tiny/rivals/self@4.model.onnx").input_shape == (1, 4, 4)
    monkeypatch.setattr(export, "stage", _refused)
    assert chase("bench", *QUICK, *OPTIONS)[0] == 0


OWN = ("slim slim.pt", "slim model.onnx", "dense dense.pt", "dense model.onnx")


def _refused(*arguments: Any) -> None:
    raise AssertionError("it exports again")


def _speeds(rows: dict[str, Any]) -> None:
    """Everything is compared with the dense twin, which has no speed-up."""
    assert [name for name, row in rows.items() if row["speedup_vs_dense"] is None] == [
        "dense dense.pt",
        "dense model.onnx",
    ]
    baselines = {row["speedup_vs_dense"]["baseline"] for row in rows.values() if row["speedup_vs_dense"]}
    assert baselines == {"dense dense.pt", "dense model.onnx"}
    assert rows["mlp model.onnx"]["macs"]["dense"] == rows["mlp model.onnx"]["macs"]["gpu_supported"]
    assert rows["self@4 model.onnx"]["macs"]["dense"] == rows["slim model.onnx"]["macs"]["dense"]
    assert rows["self@4 model.onnx"]["params"] == rows["slim model.onnx"]["params"]


def _accuracies(rows: dict[str, Any]) -> None:
    """Untrained rivals have none and say so; a smaller input is told."""
    assert rows[RIVALS[3]]["accuracy"] == rows["slim model.onnx"]["accuracy"]
    assert "resized_from" not in rows[RIVALS[3]]["settings"]
    for name in ("self@4", "self@4 model.onnx"):
        assert rows[name]["settings"]["resized_from"] == [8, 8]
        assert (rows[name]["accuracy_reason"], rows[name]["agreement"]) == (None, 100.0)
    assert rows["self@4"]["accuracy"] == rows["self@4 model.onnx"]["accuracy"] == pytest.approx(by_hand(4))
    for name in ("mlp", "mlp model.onnx", "dense@6", "dense@6 model.onnx"):
        assert rows[name]["accuracy"] is None
        assert "it is untrained" in rows[name]["accuracy_reason"]


def by_hand(size: int) -> float:
    """The accuracy, in percent, of slim.pt itself, as it was trained, on test images of another size."""
    import torch

    network, test = load_network("runs/tiny/slim.pt"), splits(Path("runs/tiny/slim.pt"), None)[1]
    with torch.no_grad():
        right = [
            network.model(torch.nn.functional.interpolate(x, (size, size), mode="bilinear", antialias=True)).argmax(1)
            == y
            for x, y in test.batches(64)
        ]
    return 100 * float(torch.cat(right).float().mean())


def _roles(path: Path) -> None:
    """In the report the rivals are others, and the verdict names who wins."""
    report = Report.load(path)
    role = Roles.of(report)
    found = {row.artifact: role(row) for row in report.rows}
    assert [name for name, each in found.items() if each is not Role.OTHER] == list(OWN)
    verdict = judge(Facts(name="run", folder=path.parent, report=report))
    assert not any("No other small network" in note.text for note in verdict.against)
    told = "The accuracy of self@4, self@4 model.onnx is on test images resized from 8 x 8."
    assert told in [note.text for note in verdict.trust]


def test_a_rival_follows_the_network_it_was_made_of(workspace: Path) -> None:
    from chase.benchmarks.rivals import rival
    from chase.run import Run

    run = Run(Path("runs/tiny"))
    first = rival(run, "self@4").path
    network = load_network(first)
    written = first.stat().st_mtime_ns

    assert network.macs["gpu_supported"] == count(network.model, network.input.example()).macs.gpu_supported
    assert rival(run, "self@4").path.stat().st_mtime_ns == written

    content = run.slim.read_bytes()
    run.slim.write_bytes(content + b"\0")  # behind the end of the archive, where readers do not look
    assert rival(run, "self@4").path.stat().st_mtime_ns != written


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--compare", "vgg9"), "no model named 'vgg9'; did you mean 'vgg19'?"),
        (("--compare", "self@x"), "--compare self@x: 'x' is no size; write a positive number of pixels"),
        (("--compare", "self@0"), "--compare self@0: '0' is no size"),
        (("--compare", "dense@-4"), "--compare dense@-4: '-4' is no size"),
        (("--compare", "self@8"), "--compare self@8: the run's own images are 8 x 8; name another size"),
        (("--compare", "self@2"), "--compare self@2 cannot run on images of 2 x 2: "),
        (("--compare", "other.onnx"), "--compare other.onnx: no such file"),
        (("--compare", "torchvision:resnet18"), "takes 3 channels, not 1"),
        (("runs/tiny/model.onnx", "--compare", "mlp"), "--compare mlp needs a run to be built for"),
    ],
)
def test_a_rival_that_cannot_be_is_refused_in_one_line(
    chase: Chase, workspace: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, _, err = chase("bench", *arguments)

    assert (code, err.count("\n")) == (2, 1)
    assert words in err
    assert not (workspace / "runs/tiny/bench.json").exists()


def test_files_are_rivals_of_named_artifacts_too(chase: Chase, elsewhere: Path) -> None:
    code, out, err = chase("bench", "runs/tiny/model.onnx", *QUICK, "--compare", "elsewhere/trained.onnx")

    assert code == 0, err
    own, other = json.loads(out)["rows"]
    assert (own["artifact"], other["artifact"]) == ("runs/tiny/model.onnx", "elsewhere/trained.onnx")
    assert [row["settings"].get("rival") for row in (own, other)] == [None, True]
    assert own["accuracy"] == other["accuracy"] == own["reference_accuracy"]


def test_a_file_for_other_images_or_classes_is_no_rival(chase: Chase, elsewhere: Path) -> None:
    sidecar = elsewhere / "elsewhere/trained.onnx.json"
    facts = json.loads(sidecar.read_text())

    for change, words in (
        ({"classes": ["cat", "dog"]}, "has other classes (2) than"),
        ({"input_shape": [3, 8, 8]}, "takes 3 channels"),
    ):
        sidecar.write_text(json.dumps(facts | change))
        code, _, err = chase("bench", "--compare", "elsewhere/trained.onnx")
        assert code == 2
        assert words in err
