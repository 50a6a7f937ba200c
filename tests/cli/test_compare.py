from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Chase
from small_reports import ENVIRONMENT, dense_row, samples, slim_row, small_report, write_run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs `a`, `fast` (slim in half the time), and `other` (on another machine)."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", report=small_report([dense_row(), slim_row()]))
    faster = slim_row(samples_ms=samples(0.5), accuracy=89.0, throughput=2020.5, size_bytes=1_000_000)
    write_run(tmp_path / "fast", report=small_report([dense_row(), faster]))
    write_run(tmp_path / "other", report=small_report(environment=ENVIRONMENT | {"cpu": "Another", "threads": 2}))
    return tmp_path


def test_runs_are_compared_row_by_row(chase: Chase, folder: Path) -> None:
    code, out, err = chase("compare", "a", "fast")

    lines = [" ".join(line.split()) for line in out.splitlines() if line]
    assert code == 0
    assert lines[0] == "against a"
    assert lines[2:] == [
        "fast dense model.onnx onnxruntime fp32 1 91.00 % → 91.00 % 2.000 → 2.000 host 1.00× (0.90–1.11) no difference "
        "506 → 506 1.000× 4.00 → 4.00",
        "fast slim model.onnx onnxruntime fp32 1 90.12 % → 89.00 % 1.000 → 0.500 host 2.00× (1.80–2.22) faster "
        "1010 → 2020 1.000× 2.00 → 1.00",
    ]
    assert "fast: intervals are widened by 10 %, which two runs of one network can differ by; for smaller" in err


def test_the_result_is_one_json_document(chase: Chase, folder: Path) -> None:
    code, out, _ = chase("compare", "a", "fast/bench.json", "--json")

    found = json.loads(out)
    slim = found["changes"][1]
    assert code == 0
    assert (found["first"], found["drift"], found["unlike"]) == ("a", {"fast": 0.1}, [])
    assert (slim["run"], slim["artifact"], slim["batch_size"], slim["clock"]) == ("fast", "slim model.onnx", 1, "host")
    assert (slim["verdict"], slim["accuracy_points"]) == ("faster", -1.125)
    assert slim["median_ms"] == {"before": pytest.approx(1.0), "after": pytest.approx(0.5)}
    assert slim["size_bytes"] == {"before": 2_000_321, "after": 1_000_000}
    assert slim["ratio"] == pytest.approx(2.0)


def test_unlike_machines_are_refused_unless_told(chase: Chase, folder: Path) -> None:
    code, out, err = chase("compare", "a", "other")

    assert (code, out) == (2, "")
    assert err == (
        "chase: not measured alike with a: other: cpu is Another, not A Processor; other: threads is 2, not 1; "
        "pass --anyway to compare all the same\n"
    )
    code, out, err = chase("compare", "a", "other", "--anyway")
    assert code == 0
    assert "not measured alike: other: cpu is Another, not A Processor" in err
    assert "only in one: other: torchvision:small on onnxruntime, fp32, batch size 1" in err


def test_many_rows_without_a_counterpart_are_counted(chase: Chase, folder: Path) -> None:
    rows = [slim_row(batch_size=size) for size in range(1, 9)]
    write_run(folder / "long", report=small_report(rows))

    _, _, err = chase("compare", "a", "long")

    assert [line for line in err.splitlines() if line.startswith("only in one")][-2:] == [
        "only in one: long: slim model.onnx on onnxruntime, fp32, batch size 5",
        "only in one: 3 more rows",
    ]


def test_a_dense_network_that_differs_is_said_to(chase: Chase, folder: Path) -> None:
    write_run(folder / "busy", report=small_report([dense_row(samples_ms=samples(3.0)), slim_row()]))

    _, _, err = chase("compare", "a", "busy")

    assert "busy: intervals are widened by 50 %, since the dense network, which did not change, differs" in err


def test_runs_of_the_same_name_are_told_apart_by_their_path(chase: Chase, folder: Path) -> None:
    write_run(folder / "deep" / "a", report=small_report([dense_row(), slim_row()]))

    code, out, _ = chase("compare", "a", "deep/a", "--json")

    assert code == 0
    assert {change["run"] for change in json.loads(out)["changes"]} == {"deep/a"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a"], "1 run cannot be compared; name two or more"),
        (["a", "a/bench.json"], "a/bench.json was named 2 times; name different runs"),
        (["a", "a", "fast"], "a/bench.json was named 2 times; name different runs"),
        (["a", "empty"], "no such file: empty/bench.json; make it with `chase bench`"),
        (["a", "nowhere"], "no such file: nowhere; make it with `chase bench`"),
        (["a", "broken.json"], "broken.json is no"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(chase: Chase, folder: Path, arguments: list[str], words: str) -> None:
    (folder / "empty").mkdir()
    (folder / "broken.json").write_text("[]")

    code, out, err = chase("compare", *arguments)

    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
