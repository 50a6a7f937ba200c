"""chase report: one page about a run that needs no network, or its tables as Markdown, CSV or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from chase.cli.console import Console


def command(
    ctx: typer.Context,
    run: Annotated[Path | None, typer.Argument(help="A run's folder, or a bench.json; default: the run.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Default: report.html in the run.")] = None,
    format: Annotated[str, typer.Option("--format", help="html, md, csv or json.")] = "html",
) -> None:
    """Write the report: what was gained, whether it can be trusted, and where it is not worth it."""
    from chase.run import current

    console: Console = ctx.obj
    console.result(stage(console, run or current(console.run).folder, out, format))


def stage(console: Console, run: Path, out: Path | None = None, format: str = "html") -> dict[str, Any]:
    """Write the report of a run and say what it comes to; where it is, its headline, and what is missing in it."""
    from chase.benchmarks.page import FORMATS, gather, judge, write_report

    FORMATS[format]
    facts = gather(run)
    target = write_report(facts, format=format, out=out)
    verdict = judge(facts)
    console.say(verdict.headline)
    for what, command in facts.missing:
        console.say(f"not in the report: {what}; run `{command}`")
    console.say(f"written to {target}")
    missing = [{"what": what, "command": command} for what, command in facts.missing]
    return {"report": str(target), "format": format, "headline": verdict.headline, "missing": missing}
