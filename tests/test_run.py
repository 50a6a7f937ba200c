"""Runs: folders, manifests, and what is up to date."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from chase.errors import CheckpointError
from chase.files import sha256
from chase.run import Run, current, fresh, versions


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run `runs/a` in an empty current directory, with a recipe and a checkpoint made from it."""
    monkeypatch.chdir(tmp_path)
    made = Run(Path("runs") / "a")
    made.folder.mkdir(parents=True)
    made.recipe.write_text("recipe")
    made.checkpoint.write_bytes(b"weights")
    made.record(made.checkpoint, parents=[made.recipe], seed=3)
    return made


def test_files_have_fixed_names() -> None:
    run = Run(Path("runs/a"))

    files = [run.recipe, run.checkpoint, run.metrics, run.slim, run.bench, run.manifest, run.dense.checkpoint]
    assert [str(path.relative_to("runs/a")) for path in files] == [
        "recipe.yaml",
        "checkpoint.pt",
        "metrics.jsonl",
        "slim.pt",
        "bench.json",
        "manifest.json",
        "dense/checkpoint.pt",
    ]


def test_the_manifest_says_what_made_a_file(run: Run) -> None:
    entry = run.entries()["checkpoint.pt"]

    assert entry["sha256"] == sha256(run.checkpoint)
    assert entry["parents"] == {"recipe.yaml": sha256(run.recipe)}
    assert entry["command"] == sys.argv
    assert entry["versions"] == versions()
    assert entry["seed"] == 3


def test_another_record_adds_to_the_manifest(run: Run) -> None:
    run.slim.write_bytes(b"slim")
    run.record(run.slim, parents=[run.checkpoint])

    assert run.entries().keys() == {"checkpoint.pt", "slim.pt"}


def test_a_file_is_current_while_it_its_parents_and_its_facts_stay(run: Run) -> None:
    assert run.is_current(run.checkpoint)
    assert run.is_current(run.checkpoint, seed=3)
    assert not run.is_current(run.checkpoint, seed=4)
    assert not run.is_current(run.checkpoint, round_to=8)


def test_a_changed_file_is_not_current(run: Run) -> None:
    run.checkpoint.write_bytes(b"other")

    assert not run.is_current(run.checkpoint)


def test_a_changed_or_lost_parent_makes_a_file_stale(run: Run) -> None:
    run.recipe.write_text("other")
    assert not run.is_current(run.checkpoint)

    run.recipe.write_text("recipe")
    assert run.is_current(run.checkpoint)

    run.recipe.unlink()
    assert not run.is_current(run.checkpoint)


def test_a_file_that_is_missing_or_unknown_is_not_current(run: Run) -> None:
    run.slim.write_bytes(b"by hand")
    run.checkpoint.unlink()

    assert not run.is_current(run.slim)
    assert not run.is_current(run.checkpoint)
    assert not Run(Path("runs/none")).is_current(Path("runs/none/slim.pt"))


def test_files_below_and_beside_the_folder_are_known_by_relative_paths(run: Run) -> None:
    run.dense.folder.mkdir()
    run.dense.checkpoint.write_bytes(b"dense")
    run.record(run.checkpoint, parents=[run.dense.checkpoint])

    assert run.entries()["checkpoint.pt"]["parents"] == {"dense/checkpoint.pt": sha256(run.dense.checkpoint)}
    moved = run.folder.rename("moved")
    assert Run(moved).is_current(Run(moved).checkpoint)


def test_artifacts_are_the_files_with_a_description_beside_them(run: Run) -> None:
    for name in ("model.onnx", "model.onnx.json", "model.ts", "gone.ts.json", "bench.json", "b.int8.onnx.json"):
        (run.folder / name).write_text("{}")
    (run.folder / "b.int8.onnx").write_text("")

    assert [path.name for path in run.artifacts()] == ["b.int8.onnx", "model.onnx"]


def test_the_latest_run_is_the_current_one(run: Run) -> None:
    run.make_latest()

    assert Path("runs/latest").read_text() == "a\n"
    assert current() == run
    assert current(run.folder) == run


def test_a_run_elsewhere_never_becomes_the_latest(run: Run, tmp_path: Path) -> None:
    run.make_latest()
    Run(tmp_path / "elsewhere").make_latest()

    assert current() == run


def test_no_current_run_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(CheckpointError, match="there is no current run here; start one with `chase train`"):
        current()
    with pytest.raises(CheckpointError, match="no such run: runs/b; start one with"):
        current(Path("runs/b"))


@pytest.mark.parametrize(("name", "said"), [("gone", "gone"), ("", "no run")])
def test_a_latest_run_that_has_gone_is_named(run: Run, name: str, said: str) -> None:
    Path("runs/latest").write_text(name + "\n")

    with pytest.raises(CheckpointError, match=f"runs/latest names {said}, which is not there; name a run with --run"):
        current()


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"slim.pt": 3}'])
def test_a_manifest_that_is_none_is_one_clear_error(run: Run, text: str) -> None:
    run.manifest.write_text(text)

    with pytest.raises(CheckpointError, match="manifest.json is .*; remove it and run the stage again"):
        run.record(run.checkpoint)


def test_a_fresh_run_never_takes_a_folder_that_is_there(run: Run) -> None:
    assert fresh("b").folder == Path("runs/b")
    assert fresh("a").folder == Path("runs/a-2")

    Path("runs/a-2").mkdir()
    assert fresh("a").folder == Path("runs/a-3")


def test_versions_name_what_is_installed_and_leave_out_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chase.run.PACKAGES", ("torch", "no-such-package"))

    assert versions() == {"python": sys.version.split()[0], "torch": version("torch")}
