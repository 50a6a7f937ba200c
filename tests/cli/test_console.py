from __future__ import annotations

import json
import sys

import pytest

from chase.cli.console import Console, millions, percent


def test_json_replaces_tables_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(json=True)

    console.table("title", ("a",), [(1,)])
    console.result({"a": 1})
    console.say("to people")

    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": 1}
    assert captured.err == "to people\n"


def test_quiet_leaves_nothing_but_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=True)

    console.table("title", ("a",), [(1,)])
    console.say("to people")
    with console.progress("work") as advance:
        advance(1, 2)

    assert capsys.readouterr() == ("", "")


def test_numbers_stand_on_the_right_words_on_the_left_and_a_blank_line_below(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Console().table("sizes", ("name", "number"), [("a", 5), ("bcdef", 12345)])

    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["sizes", "name   number", "a           5", "bcdef   12345", ""]


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 5.0, 11.0, 11.0, 12.0])
    monkeypatch.setattr("chase.cli.console.time.monotonic", lambda: next(clock))

    with Console().progress("work") as advance:
        for done in (1, 2, 3):
            advance(done, 3)

    assert capsys.readouterr().err == "work: 2 of 3\n"


def test_progress_is_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")

    with Console().progress("work") as advance:
        advance(2, 2)

    assert "work" in capsys.readouterr().err


def test_counts_and_shares_are_written_for_people() -> None:
    assert [millions(number) for number in (4_089_184_256, 123_456, 5_300)] == ["4089.18 M", "0.12 M", "0.0053 M"]
    assert [percent(share) for share in (97.5, None)] == ["97.50 %", "–"]
