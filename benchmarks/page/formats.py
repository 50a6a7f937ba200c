"""Formats: a report as a page, as Markdown for a pull request, as CSV rows, or as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chase.benchmarks.page.facts import Facts, gather
from chase.benchmarks.page.notes import Note
from chase.benchmarks.page.records import training_table
from chase.benchmarks.page.render import html
from chase.benchmarks.page.tables import Table, facts_of, tables
from chase.benchmarks.page.verdict import judge
from chase.benchmarks.page.widths import width_table, widths_of
from chase.benchmarks.schema import finite
from chase.errors import CheckpointError
from chase.files import atomic
from chase.registry import Registry

RAW = ("samples_ms", "cpu_ms", "gpu_ms", "enqueue_ms")
MARKS = {"good": "✓ ", "bad": "! ", "plain": ""}


def write_report(run: Facts | Path | str, *, format: str = "html", out: Path | str | None = None) -> Path:
    """Write the report of a run's folder, or of a bench.json alone; where it is (default: beside the measurements).

    Raises:
        UnknownName: if there is no such format.
        CheckpointError: if there is nothing to report, or a file is damaged.
        OutputError: if it cannot be written.
    """
    writer = FORMATS[format]
    facts = run if isinstance(run, Facts) else gather(Path(run))
    target = Path(out) if out else facts.folder / f"report.{format}"
    text = writer(facts)
    with atomic(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return target


def markdown(facts: Facts) -> str:
    """The verdict and the tables in Markdown."""
    verdict = judge(facts)
    lines = [f"# {_plain(facts.name)}", "", _plain(verdict.headline), "", _plain(verdict.where), ""]
    for heading, notes in (("Can it be trusted?", verdict.trust), ("Where it is not worth it", verdict.against)):
        lines += _notes(heading, notes)
    made = list(tables(facts.report).values()) if facts.report else []
    for table in [*made, training_table(facts.network), width_table(widths_of(facts.network))]:
        lines += _lines(table) if table else []
    if facts.missing:
        lines += ["## Not in this report", ""]
        lines += [f"- {_plain(what)}: `{command}`" for what, command in facts.missing] + [""]
    return "\n".join(lines)


def _notes(heading: str, notes: tuple[Note, ...]) -> list[str]:
    marked = [f"- {MARKS[note.kind]}{_plain(note.text)}" for note in notes]
    return [f"## {heading}", "", *marked, ""] if marked else []


def _lines(table: Table) -> list[str]:
    headings = " | ".join(_plain(column.title) for column in table.columns)
    rules = " | ".join("--:" if table.numeric(n) else "---" for n in range(len(table.columns)))
    rows = ["| " + " | ".join(_plain(cell.text) for cell in row) + " |" for row in table.rows]
    note = [_plain(table.note), ""] if table.note else []
    return [f"## {table.title}", "", *note, f"| {headings} |", f"| {rules} |", *rows, ""]


def _plain(text: str) -> str:
    """Text that Markdown shows letter by letter, on one line; backticks still mark code."""
    for sign, written in SIGNS.items():
        text = text.replace(sign, written)
    return " ".join(text.split())


SIGNS = {"\\": "\\\\", "&": "&amp;", "<": "&lt;", ">": "&gt;"} | {sign: f"\\{sign}" for sign in "*_|[]"}


def comma_separated(facts: Facts) -> str:
    """One line for each row of bench.json, without raw samples.

    Raises:
        CheckpointError: if nothing was measured.
    """
    if facts.report is None:
        raise CheckpointError(f"{facts.name} has no bench.json, so there are no rows; make it with `chase bench`")
    rows = [dict(_fields(facts_of(row))) for row in facts.report.rows]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _fields(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a row with dotted names; the ends of an interval are two, sentences are one."""
    for name, value in facts.items():
        if prefix + name in RAW:
            continue
        if isinstance(value, Mapping):
            yield from _fields(value, f"{prefix}{name}.")
        elif isinstance(value, list) and name == "ci95":
            yield from zip((f"{prefix}{name}.low", f"{prefix}{name}.high"), value, strict=True)
        else:
            yield prefix + name, " ".join(map(str, value)) if isinstance(value, list) else value


def document(facts: Facts) -> str:
    """bench.json and the facts of the run as one JSON object."""
    content = finite({"bench": facts.report and facts.report.to_dict(), "run": facts.to_dict()})
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


FORMATS = Registry("report format", {"html": html, "md": markdown, "csv": comma_separated, "json": document})
