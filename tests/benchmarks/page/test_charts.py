from __future__ import annotations

from typing import Any

import pytest
from small_reports import dense_row, gained, other_row, samples, slim_row, small_report

from chase.benchmarks.page.charts import (
    Chart,
    Palette,
    accuracy_charts,
    distribution_charts,
    gain_charts,
    legend,
    log_axis,
    names_axis,
)
from chase.benchmarks.page.roles import Role, Roles, baseline_of, short_names
from chase.benchmarks.report import Row


def points(chart: Chart) -> list[dict[str, Any]]:
    return [trace for trace in chart.data if trace["mode"] != "lines"]


def test_each_batch_size_has_a_chart_with_a_point_for_each_artifact() -> None:
    report = small_report()

    made = accuracy_charts(report, "latency")

    assert [chart.name for chart in made] == ["accuracy-latency-1", "accuracy-latency-8"]
    found = [(trace["name"], trace["x"][0], trace["y"][0]) for trace in points(made[0])]
    assert found == [
        ("dense model.onnx on onnxruntime", pytest.approx(2.0), 91.0),
        ("slim model.onnx on onnxruntime", pytest.approx(1.0), 90.125),
        ("torchvision:small on onnxruntime", pytest.approx(1.5), 85.0),
    ]


def test_a_point_has_the_interval_of_its_median() -> None:
    trace = points(accuracy_charts(small_report([slim_row(samples_ms=(1.0,) * 30 + (2.0,) * 30)]), "latency")[0])[0]

    bars = trace["error_x"]

    assert trace["x"][0] - bars["arrayminus"][0] == 1.0
    assert trace["x"][0] + bars["array"][0] == 2.0


def test_throughput_has_the_numbers_of_the_rows() -> None:
    made = accuracy_charts(small_report(), "throughput")

    assert [trace["x"] for trace in points(made[1])] == [[1100.5]] * 3


def test_charts_of_accuracy_share_their_axis_and_leave_out_what_is_unknown() -> None:
    report = small_report([dense_row(accuracy=None), slim_row(), slim_row(batch_size=8, accuracy=95.0)])

    first, second = accuracy_charts(report, "latency")

    assert first.layout["yaxis"]["range"] == second.layout["yaxis"]["range"]
    assert len(points(first)) == 1
    assert accuracy_charts(small_report([dense_row(accuracy=None)]), "latency") == []


def test_slim_is_filled_dense_is_hollow_and_others_are_diamonds_with_their_name() -> None:
    dense, slim, other = points(accuracy_charts(small_report(), "latency")[0])

    assert [trace["marker"]["symbol"] for trace in (dense, slim, other)] == ["circle-open", "circle", "diamond-open"]
    assert [trace["text"] for trace in (dense, slim, other)] == [[""], [""], ["torchvision:small"]]


def test_a_line_leads_from_dense_to_slim() -> None:
    chart = accuracy_charts(small_report(), "latency")[0]

    (line,) = [trace for trace in chart.data if trace["mode"] == "lines"]

    assert line["x"] == pytest.approx([2.0, 1.0])
    assert line["y"] == [91.0, 90.125]


def test_each_runtime_and_precision_has_a_colour_and_after_seven_another_shape() -> None:
    rows = [slim_row(runtime=f"runtime{n}") for n in range(9)]
    report = small_report(rows)

    palette = Palette.of(report)

    assert [palette.colour(row) for row in rows] == [f"--c{n}" for n in (1, 2, 3, 4, 5, 6, 7, 1, 2)]
    assert palette.marker(rows[0])["symbol"] != palette.marker(rows[7])["symbol"]
    assert legend(report)[1] == {"label": "runtime1 fp32", "colour": "--c2"}


def test_speedups_show_their_interval_and_what_the_macs_promise() -> None:
    first, second = gain_charts(small_report())

    promise, slim, other = first.data

    assert promise["x"] == [2.0, 4 / 3]
    assert slim["x"] == [2.0]
    assert slim["error_x"]["array"] == pytest.approx([0.04])
    assert other["y"] == [1]
    assert first.layout["xaxis"]["range"] == second.layout["xaxis"]["range"] == [0, pytest.approx(1.06 * 2.04)]
    assert "no difference" in second.data[1]["hovertemplate"]
    assert gain_charts(small_report([dense_row()])) == []


def test_a_chart_of_speedups_does_without_macs() -> None:
    row = slim_row(speedup_vs_dense=gained(2.0, "dense", mac_ratio=None))

    assert len(gain_charts(small_report([row]))[0].data) == 1


def test_every_timed_call_is_a_point() -> None:
    report = small_report()

    made = distribution_charts(report)

    assert [len(chart.data) for chart in made] == [3, 3]
    assert made[0].data[1]["x"] == [float(f"{sample:.4g}") for sample in report.rows[1].samples_ms]
    assert [box["y0"] for box in made[0].data] == [0, 1, 2]


def test_latencies_far_apart_stand_on_a_logarithmic_axis() -> None:
    near = distribution_charts(small_report([slim_row(), dense_row()]))[0]
    far = distribution_charts(small_report([slim_row(), dense_row(samples_ms=samples(50.0))]))[0]

    assert near.layout["xaxis"].get("type") is None
    assert far.layout["xaxis"]["type"] == "log"
    assert log_axis("ms", [0.3, 40.0])["ticktext"] == ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50"]


def test_names_are_shown_letter_by_letter_and_cut_at_the_front() -> None:
    found = names_axis(["<b>&", "a/very/long/folder/of/files/model.onnx", "x"])

    assert found["ticktext"] == ["&lt;b&gt;&amp;", "…older/of/files/model.onnx", "x"]
    assert found["tickvals"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("row", "role"),
    [
        (dense_row(), Role.DENSE),
        (dense_row(artifact="dense other.onnx"), Role.DENSE),
        (slim_row(), Role.SLIM),
        (slim_row(artifact="mine.onnx"), Role.SLIM),
        (other_row(), Role.OTHER),
        (other_row(macs={}, params={}), Role.OTHER),
    ],
)
def test_roles_follow_from_baselines_names_and_what_was_removed(row: Row, role: Role) -> None:
    assert Roles.of(small_report())(row) is role


def test_the_baseline_is_of_the_same_batch_size_runtime_and_precision() -> None:
    eager, same = dense_row(runtime="eager"), dense_row()
    report = small_report([eager, same, dense_row(batch_size=8), slim_row()])

    assert baseline_of(slim_row(), report) is same
    assert baseline_of(slim_row(runtime="openvino"), report) is eager  # the only kind that there is
    assert baseline_of(dense_row(), report) is None


def test_short_names_say_what_tells_rows_apart() -> None:
    rows = [slim_row(artifact="a"), slim_row(artifact="b"), slim_row(artifact="b", runtime="eager")]
    rows += [slim_row(artifact="c"), slim_row(artifact="c", precision="fp16")]

    assert list(short_names(small_report(rows)).values()) == [
        "a",
        "b · onnxruntime",
        "b · eager",
        "c · fp32",
        "c · fp16",
    ]
