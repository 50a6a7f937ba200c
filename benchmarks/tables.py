"""Tables of the README and of docs/, made from the published results.

    python -m chase.benchmarks.tables [--check]

What stands between `<!-- results: NAME -->` and `<!-- end -->` is replaced by the table NAME of TABLES.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from chase.benchmarks.paper.document import cells, made
from chase.benchmarks.report import Report, Row
from chase.errors import ChaseError, CheckpointError, RecipeError
from chase.files import atomic

ROOT = Path(__file__).resolve().parents[1]
RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
Cells = tuple[str, ...]
BLOCK = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def newest(what: str, results: Path = ROOT / "benchmarks" / "results") -> Path:
    """The newest results/<machine>/<date>-<what>.json.

    Raises:
        CheckpointError: if there is none.
    """
    found = sorted(results.glob(f"cpu/????-??-??-{what}.json"))
    if not found:
        raise CheckpointError(f"no results {what!r} in {results}; make and publish them first")
    return found[-1]


def speed_ups(*reports: Report) -> str:
    """How much faster each shape is, a line for each, a column for each runtime and batch size."""
    rows = [row for report in reports for row in report.rows if row.speedup_vs_dense]
    columns = sorted({(row.runtime, row.batch_size) for row in rows})
    numbers = ["fewer MACs", *(f"{RUNTIMES[runtime]}, batch {size}" for runtime, size in columns)]
    networks = dict.fromkeys(row.artifact for row in rows)
    lines = [(name, *_across([row for row in rows if row.artifact == name], columns)) for name in networks]
    return _table(_source(reports[0].environment, RUNTIMES), "network", " | ".join(numbers), lines)


def _across(rows: Sequence[Row], columns: Sequence[tuple[str, int]]) -> list[str]:
    found = {(row.runtime, row.batch_size): (row.speedup_vs_dense or {})["median"] for row in rows}
    return [f"{ratio:.2f} ×" for ratio in (rows[0].mac_ratio, *(found[column] for column in columns))]


def shapes(report: Report) -> str:
    """How much faster each shape is than its dense network."""
    words, numbers = "network | runtime", "batch | speed-up (95 %) | fewer MACs | efficiency"
    lines = [_shape(row) for row in report.rows if row.speedup_vs_dense]
    return _table(_source(report.environment, RUNTIMES), words, numbers, lines, last="verdict")


def _shape(row: Row) -> Cells:
    found = row.speedup_vs_dense or {}
    promised = "–" if row.mac_ratio is None else f"{row.mac_ratio:.2f} ×"
    gained = "–" if row.efficiency is None else f"{row.efficiency:.2f}"
    low, high = found["ci95"]
    speed_up = f"{found['median']:.2f} × ({low:.2f}–{high:.2f})"
    return row.artifact, row.runtime, str(row.batch_size), speed_up, promised, gained, found["verdict"]


def slimming_training(content: Mapping[str, Any]) -> str:
    """What is left of a masked training's time when it is compacted on its way."""
    words = "network | channels leave by | layout"
    numbers = "batch | cuts | masked step | last step: MACs | time | all steps: time"
    return _table(_source(content["environment"]), words, numbers, map(_replay, content["rows"]))


def _replay(row: Mapping[str, Any]) -> Cells:
    settings = ", ".join(f"{name}={value}".lower() for name, value in row["settings"].items())
    by = "the same share of every layer" if row["allocation"] == "even" else f"{row['allocation']} {settings}".strip()
    layout = "channels-last" if row["channels_last"] else "contiguous"
    last = row["rows"][-1]
    ratios = (f"{ratio:.2f} ×" for ratio in (last["macs_ratio"], last["time_ratio"], row["time_ratio"]))
    step = f"{1000 * median(each['masked_step_s'] for each in row['rows']):.0f} ms"
    return row["model"], by, layout, str(row["batch_size"]), str(row["compactions"]), step, *ratios


def overhead(content: Mapping[str, Any]) -> str:
    """What the Sparsifier costs an ordinary step, with what two dense networks differ by, and an event."""
    numbers = "masking, ms | of a dense step | sparse / dense (95 %) | dense / dense (95 %) | event, ms"
    return _table(_source(content["environment"]), "network | images", numbers, map(_step, content["rows"]))


def _step(row: Mapping[str, Any]) -> Cells:
    side = row["work"]["side"]
    images = f"{row['batch_size']} of {side}x{side}"
    pairs = (row["sparse_over_dense"], row["dense_over_dense"])
    ratios = (f"{each['median']:.3f} ({each['ci95'][0]:.3f}–{each['ci95'][1]:.3f})" for each in pairs)
    share = f"{100 * row['masking_share']:.2f} %"
    return row["model"], images, f"{row['masking_ms']:.1f}", share, *ratios, f"{row['event_ms']:.0f}"


def selection(content: Mapping[str, Any]) -> str:
    """What it takes to find the weights that stay, in several ways."""
    numbers = "processor time | extra memory | of it a weight | weights too many"
    lines = [_way(row, content["weights"]) for row in content["rows"]]
    return _table(_source(content["environment"]), "way", numbers, lines)


def _way(row: Mapping[str, Any], weights: int) -> Cells:
    each = f"{1e6 * row['extra_mb'] / weights:.1f} bytes"
    return row["way"], f"{row['cpu_ms']:.0f} ms", f"{row['extra_mb']:.0f} MB", each, str(row["off_by"])


def _source(facts: Mapping[str, Any], runtimes: Mapping[str, str] | None = None) -> str:
    """Where and when results were measured; `runtimes` are those that took part beside torch, as for RUNTIMES."""
    used = {**(runtimes or {}), "torch": "torch"}
    versions = ", ".join(f"{name} {facts[key]}" for key, name in used.items() if facts.get(key))
    threads = "1 thread" if facts["threads"] == 1 else f"{facts['threads']} threads"
    return f"{facts['cpu']}, {threads}, {versions}, {facts['date'][:10]}:"


def _table(source: str, words: str, numbers: str, lines: Iterable[Cells], *, last: str = "") -> str:
    """A source and a table: columns of words to the left, of numbers to the right, and perhaps a last one of words."""
    head = (words, numbers, last) if last else (words, numbers)
    marks = ["---"] * len(words.split("|")) + ["--:"] * len(numbers.split("|")) + ["---"] * bool(last)
    body = [f"| {' | '.join(cells)} |" for cells in (head, *lines)]
    return "\n".join([source, "", body[0], f"|{'|'.join(marks)}|", *body[1:]])


def paper(content: Mapping[str, Any]) -> str:
    """A table of `chase paper` in Markdown, with the command that made it above."""
    return "\n".join([f"{made(content)}:", "", *cells(content)])


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@dataclass(frozen=True)
class Table:
    """A table in Markdown: how the results of some names are read, and what is made of them."""

    read: Callable[[Path], Any]
    make: Callable[..., str]
    results: tuple[str, ...]


TABLES: dict[str, Table] = {
    "speed-ups": Table(Report.load, speed_ups, ("shapes-resnet50", "shapes")),
    **{name: Table(Report.load, shapes, (name,)) for name in ("shapes", "shapes-resnet50")},
    **{
        name: Table(_read, paper, (name,))
        for name in (
            *("paper-table2", "paper-baselines", "paper-improvements", "paper-longer", "paper-wider"),
            *("paper-compaction", "paper-compaction-digits"),
        )
    },
    "in-training-slimming": Table(_read, slimming_training, ("in-training-slimming",)),
    "selection": Table(_read, selection, ("selection",)),
    "sparsifier-overhead": Table(_read, overhead, ("sparsifier-overhead",)),
}


def rewritten(text: str, table: Callable[[str], str]) -> str:
    """The text with `table(name)` in each of its marked places."""
    return BLOCK.sub(lambda found: f"{found[1]}{table(found[2])}\n{found[3]}", text)


def published(name: str) -> str:
    """The table `name` from the newest results that it is made of.

    Raises:
        RecipeError: if there is no such table.
        CheckpointError: if there are no results for it.
    """
    if name not in TABLES:
        raise RecipeError(f"no table named {name!r}; known: {', '.join(TABLES)}")
    table = TABLES[name]
    return table.make(*(table.read(newest(results)) for results in table.results))


def documents() -> list[Path]:
    """The files in which tables may stand."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main() -> None:
    """Rewrite the documents, or with --check exit with 1 where one differs."""
    parser = argparse.ArgumentParser(
        prog="python -m chase.benchmarks.tables", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a table is out of date")
    check = parser.parse_args().check
    try:
        for document in documents():
            _rewrite(document, check=check)
    except ChaseError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def _rewrite(document: Path, *, check: bool) -> None:
    text = document.read_text()
    new = rewritten(text, published)
    if check and new != text:
        raise ChaseError(f"{document.name} differs from the results; run python -m chase.benchmarks.tables")
    if new != text:
        with atomic(document) as temporary:
            temporary.write_text(new)


if __name__ == "__main__":
    main()
