from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_reports import WIDTHS, dense_row, gained, other_row, samples, slim_row, small_report

from chase.benchmarks.page.facts import Facts
from chase.benchmarks.page.notes import Note
from chase.benchmarks.page.verdict import Verdict, judge
from chase.benchmarks.report import Row


def verdict(*rows: Row, **facts: Any) -> Verdict:
    return judge(Facts(name="run", folder=Path("run"), report=small_report(rows), **facts))


def texts(notes: tuple[Note, ...], kind: str) -> list[str]:
    return [note.text for note in notes if note.kind == kind]


def gain(ratio: float, said: str, size: int, **changes: Any) -> Row:
    facts = {"speedup_vs_dense": gained(ratio, "dense model.onnx", verdict=said), "batch_size": size}
    return slim_row(**(facts | changes))


def test_the_headline_says_what_was_gained_where_and_at_what_price() -> None:
    found = verdict(dense_row(), slim_row(), dense_row(batch_size=8), gain(1.5, "faster", 8))

    assert found.tone == "gain"
    assert found.headline == (
        "The slim network is 1.50–2.00× as fast as the dense one at batch sizes 1 and 8, and 0.88 points less accurate."
    )
    assert found.where == "slim model.onnx. onnxruntime (CPUExecutionProvider) in fp32, A Processor, CPU threads: 1."


@pytest.mark.parametrize(
    ("said", "tone", "words"),
    [
        (
            ("faster", "no difference"),
            "mixed",
            "is 2.00× as fast as the dense one at batch size 1, is no faster at batch size 8",
        ),
        (("slower", "no difference"), "none", "is no faster at batch size 8, is slower (2.00×) at batch size 1"),
        (
            ("slower", "faster"),
            "mixed",
            "is 2.00× as fast as the dense one at batch size 8, is slower (2.00×) at batch size 1",
        ),
    ],
)
def test_the_headline_does_not_hide_the_sizes_at_which_nothing_was_gained(
    said: tuple[str, str], tone: str, words: str
) -> None:
    found = verdict(dense_row(), gain(2.0, said[0], 1), gain(2.0, said[1], 8))

    assert found.tone == tone
    assert found.headline.startswith(f"The slim network {words}")


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [
        (91.0, ", at the same accuracy."),
        (92.5, ", and 1.50 points more accurate."),
        (None, "; what that costs in accuracy is not known."),
    ],
)
def test_the_headline_ends_with_the_accuracy(accuracy: float | None, words: str) -> None:
    assert verdict(dense_row(), slim_row(accuracy=accuracy)).headline.endswith(words)


def test_the_slim_artifact_that_answers_soonest_is_the_one_spoken_of() -> None:
    slow = slim_row(artifact="slim slim.pt", runtime="eager", samples_ms=samples(3.0))

    found = verdict(dense_row(), slow, slim_row())

    assert found.where.startswith("slim model.onnx, which answers soonest of 2 slim artifacts. onnxruntime")


def test_the_figures_are_those_of_the_headline() -> None:
    found = verdict(dense_row(), slim_row())

    assert [(figure.value, figure.what, figure.detail) for figure in found.figures] == [
        ("2.00×", "the speed of dense", "95 %: 1.96–2.04 at batch size 1"),
        ("90.12 %", "top-1 accuracy", "−0.88 points to dense"),
        ("50 %", "of the MACs remain", "2.0 M per image"),
        ("2.00 MB", "file size", "50 % of dense"),
    ]


def test_without_a_dense_network_nothing_is_claimed() -> None:
    found = verdict(slim_row(speedup_vs_dense=None))

    assert found.headline == "Nothing is said about gains: no dense network was measured beside these."
    assert (found.tone, found.figures, found.against) == ("unknown", (), ())


def test_without_measurements_nothing_is_claimed() -> None:
    assert judge(Facts(name="run", folder=Path("run"))).headline == "Nothing has been measured yet."


def test_losses_are_named_with_artifact_and_batch_size() -> None:
    rows = [dense_row(), gain(1.0, "no difference", 1), gain(0.9, "slower", 8), gain(0.9, "slower", 32)]

    found = texts(verdict(*rows).against, "bad")

    assert found[:3] == [
        "Slower than dense at batch sizes 8 and 32: slim model.onnx.",
        "No faster than dense at batch size 1: slim model.onnx.",
        "0.88 points of top-1 accuracy are lost: slim model.onnx.",
    ]


def test_a_small_loss_of_accuracy_is_no_reason_against_it() -> None:
    found = verdict(dense_row(accuracy=90.6), slim_row())

    assert not any("accuracy" in text for text in texts(found.against, "bad"))


def test_wasted_macs_are_named() -> None:
    found = verdict(dense_row(), gain(1.4, "faster", 1), gain(1.9, "faster", 8))

    words = "Less than 0.85 of the speed-up that the MACs promise (0.70 at worst) at batch size 1: slim model.onnx."
    assert words in texts(found.against, "bad")


def test_slow_calls_that_are_no_faster_are_named() -> None:
    many = {"samples_ms": samples(2.0, 100)}
    tail = samples(1.0, 97) + (9.0, 9.0, 9.0)

    found = verdict(dense_row(**many), slim_row(samples_ms=tail))

    assert "The slowest calls (p99) are no faster at batch size 1: slim model.onnx." in texts(found.against, "bad")
    assert not any("p99" in text for text in texts(verdict(dense_row(), slim_row()).against, "bad"))


def test_another_network_that_is_better_in_both_is_named() -> None:
    better = other_row(accuracy=90.5, samples_ms=samples(0.9))

    found = verdict(dense_row(), slim_row(), better)

    words = "torchvision:small is faster and no less accurate than slim model.onnx at batch size 1."
    assert words in texts(found.against, "bad")


@pytest.mark.parametrize("changes", [{"accuracy": 90.0}, {"accuracy": None}, {"samples_ms": samples(1.1)}])
def test_another_network_that_is_worse_in_one_is_not(changes: dict[str, Any]) -> None:
    other = replace(other_row(accuracy=90.5, samples_ms=samples(0.9)), **changes)

    assert not any("torchvision" in text for text in texts(verdict(dense_row(), slim_row(), other).against, "bad"))


def test_widths_off_the_grid_are_counted() -> None:
    found = verdict(dense_row(), slim_row(), network={"facts": {"widths": WIDTHS}})

    assert texts(found.against, "bad")[-1].startswith("1 of 3 widths are no multiple of 8: several runtimes leave")


def test_where_nothing_speaks_against_it_the_page_says_what_was_not_tried() -> None:
    found = verdict(dense_row(accuracy=90.125), slim_row())

    assert [note.text for note in found.against] == [
        "Nothing that was measured here speaks against it.",
        "No other small network was measured beside it; see `chase bench --compare`.",
    ]
    assert [note.text for note in verdict(dense_row(accuracy=90.125), slim_row(), other_row()).against] == [
        "Nothing that was measured here speaks against it.",
        "slim model.onnx is faster and no less accurate than torchvision:small at batch size 1.",
    ]


def test_warnings_that_differ_by_numbers_alone_are_said_once() -> None:
    rows = [dense_row(warnings=("a clock of 1.5 GHz",)), slim_row(warnings=("a clock of 2.25 GHz", "hot"))]

    found = texts(verdict(*rows).trust, "bad")

    assert found == ["A clock of 1.5 GHz (2 of 2 measurements).", "Hot."]


def test_unknown_accuracies_are_a_reason_for_doubt() -> None:
    found = verdict(dense_row(accuracy=None, accuracy_reason="it is untrained"), slim_row())

    assert "The accuracy of dense model.onnx is not known: it is untrained." in texts(found.trust, "bad")
    assert "Accuracy was measured through the same file and runtime that was timed." in texts(found.trust, "good")


def test_flipped_answers_are_counted() -> None:
    found = verdict(dense_row(), slim_row(flipped=7, agreement=99.3))

    words = "Up to 7 images get another answer than from the fp32 network (agreement 99.30 % or more): slim model.onnx."
    assert words in texts(found.trust, "plain")


def test_the_certificate_and_changed_files_are_said() -> None:
    proof = {"max_rel": 3e-16, "tolerance": 1e-10, "dtype": "float64"}
    broken = {"certificate": proof | {"max_rel": 1e-3}}

    good = verdict(slim_row(), network={"certificate": proof})
    bad = verdict(slim_row(), network=broken, changed=("slim.pt", "model.onnx"))

    words = "The slim network differs from the masked one by 3.0e-16 at most, in float64 (allowed: 1e-10)."
    assert words in texts(good.trust, "good")
    assert texts(bad.trust, "bad")[-2:] == [
        "The slim network differs from the masked one by 1.0e-03 at most, in float64 (allowed: 1e-10).",
        "Changed since it was made or measured: slim.pt, model.onnx.",
    ]
