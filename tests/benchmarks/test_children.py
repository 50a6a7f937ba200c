"""Sweeps: a child process a case, and a file that is kept up to date."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from chase.benchmarks import children
from chase.benchmarks.children import Row, Sweep, cost, main, recorded, run_child
from chase.errors import MissingDependency

SAYS = "import sys, time, os, json; sys.stderr.write('stage: cut\\n'); sys.stderr.flush(); "


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a module `case_runner` that child processes can run."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "case_runner.py"


def test_the_row_of_a_child_is_its_last_line(module: Path) -> None:
    module.write_text(SAYS + "print('noise'); print(json.dumps({'case': sys.argv[2], 'ok': True}))")

    row = run_child("case_runner", "net raw", seconds=60, memory_gb=0)

    assert row == {"case": "net raw", "ok": True}


@pytest.mark.parametrize(
    ("code", "seconds", "error"),
    [
        ("os.kill(os.getpid(), 9)", 60, "killed by signal 9"),
        ("time.sleep(60)", 2, "ran past 2 s"),
        ("raise ValueError('odd')", 60, "ValueError: odd"),
    ],
)
def test_a_child_that_never_answers_is_a_row_with_its_stage(
    module: Path, code: str, seconds: float, error: str
) -> None:
    module.write_text(SAYS + code)

    assert run_child("case_runner", "net", seconds=seconds, memory_gb=0) == {
        "case": "net",
        "ok": False,
        "stage": "cut",
        "error": error,
    }


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cases that children were started for; none is really started."""
    cases: list[str] = []

    def answer(module: str, case: str, *, seconds: float, memory_gb: float) -> Row:
        cases.append(case)
        return {"case": case, "ok": len(cases) != 2, "stage": "cut", "run": len(cases)}

    monkeypatch.setattr(children, "run_child", answer)
    return cases


def names(rows: Sequence[Row]) -> str:
    return " ".join(f"{row['case']}={row['run']}" for row in rows)


SWEEP = Sweep("case_runner", "A sweep.", lambda case: {"case": case, "ok": True}, names)


def test_a_sweep_goes_on_where_it_stopped_unless_told_to_start_again(asked: list[str], tmp_path: Path) -> None:
    path = tmp_path / "rows.json"

    main(SWEEP, ["--model", "a", "--model", "b", "--json", str(path)])
    main(SWEEP, ["--model", "a", "--model", "b", "--model", "c", "--json", str(path), "--markdown"])
    main(SWEEP, ["--model", "a", "--json", str(path), "--again"])

    assert asked == ["a", "b", "c", "a"]
    found = json.loads(path.read_text())
    assert [(row["case"], row["ok"], row["run"]) for row in found["rows"]] == [
        ("a", True, 4),
        ("b", False, 2),
        ("c", True, 3),
    ]
    assert {"cpu", "torch", "torchvision", "timm", "torch-pruning"} <= found["environment"].keys()
    assert found["command"] == ["python", "-m", "case_runner", "--model", "a", "--json", str(path), "--again"]
    assert path.with_suffix(".md").read_text() == "a=1 b=2 c=3"


def test_every_model_runs_in_every_variant() -> None:
    sweep = Sweep("case_runner", "A sweep.", SWEEP.examine, names, variants=("raw", "safe"))

    assert sweep.cases(["a", "b safe"]) == ["a raw", "a safe", "b safe"]


def test_a_dash_runs_the_case_here(capsys: pytest.CaptureFixture[str]) -> None:
    main(SWEEP, ["--model", "a", "--json", "-"])

    assert json.loads(capsys.readouterr().out) == {"case": "a", "ok": True}


def test_what_would_fail_every_case_is_said_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def check() -> None:
        raise MissingDependency("needs the package x; run: pip install x")

    sweep = Sweep("case_runner", "A sweep.", SWEEP.examine, names, check=check)

    with pytest.raises(SystemExit) as stop:
        main(sweep, ["--model", "a", "--json", str(tmp_path / "rows.json")])

    assert stop.value.code == 4
    assert capsys.readouterr().err == "error: needs the package x; run: pip install x\n"


def test_an_error_is_one_line_of_the_row() -> None:
    row: Row = {}

    with recorded(row):
        row["stage"] = "cut"
        raise ValueError("two\nlines")

    assert row == {"ok": False, "stage": "cut", "error": "ValueError: two lines"}


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_the_cost_is_the_memory_at_its_peak() -> None:
    found: Row = {}

    with cost(found):
        torch.ones(16_000_000)  # 64 MB, gone at once

    assert 60 <= found["extra_mb"] <= 80
    assert found["cpu_s"] >= 0
