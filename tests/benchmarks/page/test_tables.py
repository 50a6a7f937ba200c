from __future__ import annotations

import pytest
from small_reports import dense_row, samples, slim_row, small_report

from chase.benchmarks.page.tables import at, facts_of, plain, tables
from chase.benchmarks.report import Report


def texts(report: Report, name: str, heading: str) -> list[str]:
    table = tables(report)[name]
    position = [column.title for column in table.columns].index(heading)
    return [row[position].text for row in table.rows]


def test_every_cell_holds_the_number_of_bench_json() -> None:
    report = small_report()

    made = tables(report)

    assert list(made) == ["gain", "speed", "quality", "cost"]
    facts = [facts_of(row) for row in report.rows]
    for row, cells in zip(facts, made["speed"].rows, strict=True):
        for column, cell in zip(made["speed"].columns, cells, strict=True):
            assert cell.value == at(row, column.field)


def test_a_number_is_shown_in_its_unit() -> None:
    report = small_report()

    assert texts(report, "speed", "p50 (ms)") == ["2.00", "1.00", "1.50", "8.00", "7.90", "6.00"]
    assert texts(report, "speed", "throughput (images/s)")[:2] == ["506", "1,010"]
    assert texts(report, "cost", "theoretical (M MACs)") == ["4.00", "1.00", "3.00"]
    assert texts(report, "cost", "compressed (MB)")[:2] == ["3.600", "0.700"]
    assert texts(report, "gain", "speed-up (×)")[:2] == ["2.00", "1.33"]
    assert texts(report, "quality", "top-1 (%)") == ["91.00", "90.12", "85.00"]
    assert texts(report, "quality", "worst logit error")[0] == "1.25e-06"


def test_numbers_of_one_unit_have_the_same_decimals() -> None:
    report = small_report([dense_row(samples_ms=samples(1234.5)), slim_row(samples_ms=samples(0.05))])

    assert texts(report, "speed", "p50 (ms)") == ["1,234.500", "0.050"]


def test_columns_without_a_value_are_left_out() -> None:
    headings = [column.heading for column in tables(small_report())["speed"].columns]
    on_gpu = slim_row(
        gpu_ms=(0.5, 0.7, 0.6), enqueue_ms=(0.1, 0.2), transfer_ms={"to_device": 0.3, "from_device": 0.01}
    )

    assert "GPU time" not in headings
    assert texts(small_report([on_gpu]), "speed", "GPU time (ms)") == ["0.600"]
    assert texts(small_report([on_gpu]), "speed", "enqueue (ms)") == ["0.150"]
    assert texts(small_report([on_gpu]), "speed", "from device (ms)") == ["0.010"]


def test_what_is_the_same_for_all_rows_stands_in_the_note() -> None:
    alike, unlike = small_report(), small_report([slim_row(), slim_row(precision="fp16")])

    assert tables(alike)["speed"].note.endswith("Precision: fp32. Provider: CPUExecutionProvider.")
    assert texts(unlike, "speed", "precision") == ["fp32", "fp16"]


def test_an_artifact_has_one_line_for_its_cost_and_one_per_runtime_for_its_accuracy() -> None:
    report = small_report([slim_row(), slim_row(batch_size=8), slim_row(runtime="openvino")])

    assert [len(tables(report)[name].rows) for name in ("speed", "quality", "cost")] == [3, 2, 1]


def test_without_speedups_there_is_no_table_of_them() -> None:
    assert "gain" not in tables(small_report([dense_row()]))


def test_what_is_not_known_is_a_dash_with_its_reason() -> None:
    report = small_report([slim_row(accuracy=None, accuracy_reason="no data was given"), dense_row()])

    assert texts(report, "quality", "top-1 (%)") == ["–", "91.00"]
    assert texts(report, "quality", "why not") == ["no data was given", "–"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("a.b", 1), ("a.c.0", 5), ("a.c.1", 6), ("a.x", None), ("a.b.c", None), ("x.y", None), ("a.c.x", None)],
)
def test_a_dotted_path_ends_where_there_is_nothing(field: str, value: int | None) -> None:
    assert at({"a": {"b": 1, "c": [5, 6]}}, field) == value


def test_a_table_of_facts_stands_to_the_right_where_it_holds_numbers() -> None:
    table = plain("Facts", ("name", "size", "error"), [("a", 12, 1e-7), ("b", 1200, None)])

    assert [[cell.text for cell in row] for row in table.rows] == [["a", "12", "1.00e-07"], ["b", "1,200", "–"]]
    assert [table.numeric(position) for position in range(3)] == [False, True, True]
    assert plain("Empty", ("name",), []).rows == ()
