from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from small_reports import ENVIRONMENT, SLIM_MACS, dense_row, samples, slim_row, small_report

from chase.benchmarks.comparison import RUN_MARGIN, Change, compare, differences, drift, median_interval
from chase.benchmarks.report import Report, Row
from chase.benchmarks.statistics import NOISE_MARGIN
from chase.errors import RecipeError


def report(*rows: Row, **environment: Any) -> Report:
    return small_report(rows, environment=ENVIRONMENT | environment)


def change(before: Row, after: Row) -> Change:
    (found,) = compare({"a": report(before), "b": report(after)}).changes
    return found


def test_a_run_compared_with_its_copy_shows_no_difference() -> None:
    found = compare({"a": small_report(), "b": small_report()})

    assert len(found.changes) == 6
    assert {(each.verdict, each.ratio, each.accuracy_points) for each in found.changes} == {("no difference", 1.0, 0.0)}
    assert found.drift == {"b": RUN_MARGIN}
    assert found.unlike == found.unmatched == ()


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(1.13, "faster"), (1.11, "no difference"), (1.0, "no difference"), (0.9, "no difference"), (0.88, "slower")],
)
def test_a_difference_counts_beyond_what_two_runs_of_one_network_differ_by(ratio: float, verdict: str) -> None:
    found = change(slim_row(samples_ms=(ratio,) * 20), slim_row(samples_ms=(1.0,) * 20))

    assert found.ratio == pytest.approx(ratio)
    assert found.ci95 == pytest.approx((ratio / (1 + RUN_MARGIN), ratio * (1 + RUN_MARGIN)))
    assert found.verdict == verdict
    assert (found.ci95[0] > 1 + NOISE_MARGIN) == (verdict == "faster")


def test_a_dense_network_that_differs_between_the_runs_widens_the_intervals() -> None:
    before, after = slim_row(samples_ms=samples(1.0)), slim_row(samples_ms=samples(0.8))

    quiet = compare({"a": report(dense_row(), before), "b": report(dense_row(), after)})
    busy = compare({"a": report(dense_row(samples_ms=samples(2.6)), before), "b": report(dense_row(), after)})

    assert [each.verdict for each in quiet.changes] == ["no difference", "faster"]
    assert [each.verdict for each in busy.changes] == ["no difference", "no difference"]
    assert busy.drift["b"] == pytest.approx(0.3)


def test_only_a_network_with_nothing_removed_and_the_same_macs_shows_a_drift() -> None:
    slower = samples(4.0)

    assert drift([(dense_row(), dense_row(samples_ms=slower))]) == pytest.approx(1.0)
    assert drift([(dense_row(samples_ms=slower), dense_row())]) == pytest.approx(1.0)
    assert drift([(slim_row(), slim_row(samples_ms=slower))]) == RUN_MARGIN
    assert drift([(dense_row(), dense_row(samples_ms=slower, macs=SLIM_MACS))]) == RUN_MARGIN
    assert drift([(dense_row(macs={}), dense_row(samples_ms=slower, macs={}))]) == RUN_MARGIN


def test_a_machine_that_was_slow_for_half_of_the_run_gives_a_wide_interval() -> None:
    turns = (1.0, 2.0) * 60
    halves = (1.0,) * 60 + (2.0,) * 60

    assert median_interval(halves) == (1.0, 2.0)
    assert median_interval((1.0,) * 110 + (2.0,) * 10) == (1.0, 1.0)
    assert median_interval(turns)[1] - median_interval(turns)[0] <= 1.0


def test_one_thread_is_compared_by_processor_time_which_others_do_not_add_to() -> None:
    before = slim_row(samples_ms=samples(1.0), cpu_ms=samples(1.0))
    disturbed = slim_row(samples_ms=samples(3.0), cpu_ms=samples(1.0))
    two: dict[str, Any] = {"settings": {"threads": 2}}

    alone = change(before, disturbed)
    several = change(replace(before, **two), replace(disturbed, **two))

    assert (alone.clock, alone.verdict) == ("cpu", "no difference")
    assert (several.clock, several.verdict) == ("host", "slower")


def test_processor_time_above_passed_time_means_several_threads() -> None:
    both = slim_row(samples_ms=samples(1.0), cpu_ms=samples(1.9))

    assert change(both, both).clock == "host"


def test_files_are_matched_by_name_wherever_they_lie() -> None:
    before, after = slim_row(artifact="runs/a/model.onnx"), slim_row(artifact="runs/b/model.onnx")

    assert change(before, after).verdict == "no difference"
    with pytest.raises(RecipeError, match="measured nothing in common"):
        change(replace(before, artifact="x.onnx"), after)


def test_files_of_the_same_name_in_one_run_are_matched_by_their_whole_path() -> None:
    two = report(slim_row(artifact="x/model.onnx"), slim_row(artifact="y/model.onnx", samples_ms=samples(9.0)))

    assert [each.ratio for each in compare({"a": two, "b": two}).changes] == [1.0, 1.0]


def test_rows_without_a_counterpart_are_named() -> None:
    found = compare({"a": report(dense_row(), slim_row()), "b": report(dense_row(), slim_row(batch_size=4))})

    assert found.unmatched == (
        "a: slim model.onnx on onnxruntime, fp32, batch size 1",
        "b: slim model.onnx on onnxruntime, fp32, batch size 4",
    )


GPU = {"name": "G", "driver": "1", "cuda": "12", "cudnn": 9, "free_memory_bytes": 5}


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"cpu": "Another"}, ["cpu is Another, not A Processor"]),
        ({"threads": 2, "cores": 8}, ["cores is 8, not 4", "threads is 2, not 1"]),
        ({"torch": "3.0"}, ["torch is 3.0, not 2.9.0"]),
        ({"onnxruntime": "2"}, ["onnxruntime is 2, not 1.20.0"]),
        ({"gpu": GPU | {"cuda": None, "cudnn": None}}, ["gpu name is G, not None", "gpu driver is 1, not None"]),
        ({"openvino": "2026.1"}, []),  # nothing ran on it
        ({"date": "2030-01-01", "load_average_start": [9, 9, 9], "free_memory_bytes": 1, "os": "Other"}, []),
    ],
)
def test_unlike_environments_are_named(environment: dict[str, Any], words: list[str]) -> None:
    assert differences(report(slim_row()), report(slim_row(), **environment)) == words


def test_a_runtime_that_ran_must_have_the_same_version() -> None:
    row = slim_row(runtime="openvino")

    assert differences(report(row, openvino="1"), report(row, openvino="2")) == ["openvino is 2, not 1"]
    rtx = slim_row(runtime="tensorrt-rtx")
    assert differences(report(rtx, tensorrt_rtx="1"), report(rtx, tensorrt_rtx="2")) == ["tensorrt_rtx is 2, not 1"]


def test_rows_must_have_been_measured_alike() -> None:
    other = slim_row(provider="XNNPACK", device="cuda", settings={"threads": 4, "tf32": True, "calls_per_sample": 3})

    assert differences(report(slim_row()), report(other)) == [
        "provider of onnxruntime is XNNPACK, not CPUExecutionProvider",
        "device of onnxruntime is cuda, not cpu",
        "threads of onnxruntime is 4, not 1",
        "tf32 of onnxruntime is True, not False",
        "cuda_graph of onnxruntime is None, not False",
    ]


def test_unlike_environments_are_refused_unless_told() -> None:
    fast = report(dense_row(samples_ms=samples(1.0)), cpu="Fast", torch="3.0")
    reports = {"a": report(dense_row()), "b": report(dense_row()), "c": fast}

    with pytest.raises(
        RecipeError, match="not measured alike with a: c: cpu is Fast, not A Processor; c: torch.*--anyway"
    ):
        compare(reports)
    found = compare(reports, anyway=True)
    assert found.unlike == ("c: cpu is Fast, not A Processor", "c: torch is 3.0, not 2.9.0")
    assert found.drift == {"b": RUN_MARGIN, "c": RUN_MARGIN}  # between machines the dense network may differ
    assert [(each.run, each.verdict) for each in found.changes] == [("b", "no difference"), ("c", "faster")]


def test_one_run_is_no_comparison() -> None:
    with pytest.raises(RecipeError, match="1 run cannot be compared; name two or more"):
        compare({"a": small_report()})


def test_accuracy_differs_in_points_where_both_are_known() -> None:
    assert change(slim_row(accuracy=90.0), slim_row(accuracy=89.25)).accuracy_points == -0.75
    assert change(slim_row(accuracy=None), slim_row(accuracy=89.25)).accuracy_points is None
