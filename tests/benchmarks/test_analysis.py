"""What metrics.jsonl says of amenable channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_analysis import SHARES, history, write_metrics

from chase.benchmarks.analysis import History, history_table, mean, spread_out
from chase.errors import CheckpointError, RecipeError, UnknownName
from chase.run import Run


def test_the_history_is_that_of_the_metrics(tmp_path: Path) -> None:
    run = write_metrics(Run(tmp_path))

    assert History.of(run) == history()
    assert history().epochs == (1, 2, 3)
    assert history().shares["umm"]["0.2"] == SHARES


def test_a_run_without_metrics_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no metrics.jsonl; make it with `chase train`"):
        History.of(Run(tmp_path))


def test_epochs_that_do_not_fit_together_are_an_error(tmp_path: Path) -> None:
    run = write_metrics(Run(tmp_path))
    first, *rest = run.metrics.read_text().splitlines()
    run.metrics.write_text("\n".join([first, *(line.replace("stem", "root") for line in rest)]) + "\n")

    with pytest.raises(CheckpointError, match="its epochs hold different amenable channels"):
        History.of(run)


@pytest.mark.parametrize("line", [{"epoch": 1}, {"epoch": 1, "amenable": {}}])
def test_a_dense_run_has_an_empty_history(tmp_path: Path, line: dict[str, Any]) -> None:
    run = Run(tmp_path)
    run.metrics.write_text(json.dumps(line) + "\n")

    assert History.of(run) == History()


@pytest.mark.parametrize(("v", "name"), [(None, "0.2"), (0.2, "0.2"), (0.0, "0"), (0.4, "0.4")])
def test_a_threshold_is_found_by_its_value(v: float | None, name: str) -> None:
    assert history().threshold("umm", v) == name


def test_without_the_usual_threshold_the_first_is_the_default() -> None:
    assert History(epochs=(1,), shares={"ws": {"0.3": {"a": [0.5]}}}).threshold("ws") == "0.3"


def test_what_is_not_on_record_explains_itself() -> None:
    with pytest.raises(RecipeError, match=r"at the threshold 0.25, only at 0, 0.2, 0.4; train with -o"):
        history().threshold("umm", 0.25)
    with pytest.raises(UnknownName, match="no amenable metric named 'wss'; did you mean 'ws'"):
        history().threshold("wss")
    with pytest.raises(RecipeError, match="no layer fits 'layer9.*'"):
        history().layers("umm", "0.2", "layer9.*")


def test_the_table_has_the_layers_that_fit_and_their_shares() -> None:
    headings, rows = history_table(history(), "umm", "0.2", "block.*")

    assert headings == ("layer", "epoch 1", "epoch 2", "epoch 3")
    assert rows == [("block.conv1", 0.25, 0.375, 0.5), ("block.conv2", 0.0, 0.0, 0.125)]


def test_the_mean_is_over_layers() -> None:
    assert mean({"a": [0.0, 0.5], "b": [1.0, 0.25]}) == 0.375
    assert mean({"a": [0.0, 0.5], "b": [1.0, 0.25]}, 0) == 0.5


@given(st.integers(1, 400), st.integers(2, 12))
def test_epochs_are_thinned_evenly_with_both_ends(count: int, most: int) -> None:
    shown = spread_out(count, most)

    assert (shown[0], shown[-1], len(shown)) == (0, count - 1, min(count, most))
    gaps = {after - before for before, after in zip(shown, shown[1:], strict=False)}
    assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)
