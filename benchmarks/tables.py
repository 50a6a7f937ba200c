"""Tables of the README, made from the published results.

    python -m chase.benchmarks.tables [--check]

What stands between `<!-- results: NAME -->` and `<!-- end -->` is replaced by the table NAME of TABLES.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chase.benchmarks.paper.document import cells, made
from chase.benchmarks.report import Report, Row
from chase.errors import ChaseError, CheckpointError, RecipeError
from chase.files import atomic

ROOT = Path(__file__).resolve().parents[1]
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


def shapes(report: Report) -> str:
    """How much faster each shape is than its dense network, as a table in Markdown with its source above."""
    head = "| network | runtime | batch | speed-up (95 %) | fewer MACs | efficiency | verdict |"
    lines = [_line(row) for row in report.rows if row.speedup_vs_dense]
    return "\n".join([_source(report), "", head, "|---|---|--:|--:|--:|--:|---|", *lines])


def _source(report: Report) -> str:
    facts = report.environment
    known = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "torch": "torch"}
    versions = ", ".join(f"{name} {facts[key]}" for key, name in known.items() if facts.get(key))
    threads = "1 thread" if facts["threads"] == 1 else f"{facts['threads']} threads"
    return f"{facts['cpu']}, {threads}, {versions}, {facts['date'][:10]}:"


def _line(row: Row) -> str:
    found = row.speedup_vs_dense or {}
    low, high = found["ci95"]
    promised = "–" if row.mac_ratio is None else f"{row.mac_ratio:.2f} ×"
    gained = "–" if row.efficiency is None else f"{row.efficiency:.2f}"
    cells = (row.artifact, row.runtime, str(row.batch_size), f"{found['median']:.2f} × ({low:.2f}–{high:.2f})")
    return f"| {' | '.join((*cells, promised, gained, found['verdict']))} |"


def paper(content: Mapping[str, Any]) -> str:
    """A table of `chase paper` in Markdown, with the command that made it above."""
    return "\n".join([f"{made(content)}:", "", *cells(content)])


TABLES: dict[str, Callable[[Path], str]] = {
    **dict.fromkeys(("shapes", "shapes-resnet50"), lambda path: shapes(Report.load(path))),
    **dict.fromkeys(
        ("paper-table2", "paper-baselines", "paper-improvements"), lambda path: paper(json.loads(path.read_text()))
    ),
}


def rewritten(text: str, table: Callable[[str], str]) -> str:
    """The text with `table(name)` in each of its marked places."""
    return BLOCK.sub(lambda found: f"{found[1]}{table(found[2])}\n{found[3]}", text)


def published(name: str) -> str:
    """The table `name` from the newest results of that name.

    Raises:
        RecipeError: if there is no such table.
        CheckpointError: if there are no results for it.
    """
    if name not in TABLES:
        raise RecipeError(f"no table named {name!r}; known: {', '.join(TABLES)}")
    return TABLES[name](newest(name))


def main() -> None:
    """Rewrite the README, or with --check exit with 1 where it differs."""
    parser = argparse.ArgumentParser(
        prog="python -m chase.benchmarks.tables", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if the README is out of date")
    check, readme = parser.parse_args().check, ROOT / "README.md"
    try:
        text = readme.read_text()
        new = rewritten(text, published)
        if check and new != text:
            raise ChaseError("README.md differs from the results; run python -m chase.benchmarks.tables")
        if new != text:
            with atomic(readme) as temporary:
                temporary.write_text(new)
    except ChaseError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
