"""Rendering: from facts to one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from markupsafe import Markup, escape

from chase.benchmarks.layers import ALIGNMENT, wasteful
from chase.benchmarks.page import charts, history
from chase.benchmarks.page.charts import Chart
from chase.benchmarks.page.facts import Facts
from chase.benchmarks.page.glossary import GLOSSARY
from chase.benchmarks.page.notes import Note
from chase.benchmarks.page.records import (
    artifact_table,
    command_table,
    environment_table,
    file_table,
    profile_tables,
    training_table,
    warning_table,
)
from chase.benchmarks.page.roles import Roles
from chase.benchmarks.page.tables import Table, tables
from chase.benchmarks.page.verdict import Verdict, judge
from chase.benchmarks.page.widths import Width, width_table, widths_of
from chase.benchmarks.report import Report
from chase.benchmarks.schema import finite


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the page: charts beside each other (or one below the other), then tables, some of them folded."""

    anchor: str
    short: str
    heading: str
    text: str = ""
    charts: Sequence[Chart | None] = ()
    tables: Sequence[Table | None] = ()
    folded: Sequence[Table | None] = ()
    notes: Sequence[Note] = ()
    stacked: bool = False
    legend: bool = False

    @property
    def drawn(self) -> list[Chart]:
        """The charts that there are."""
        return [chart for chart in self.charts if chart]

    @property
    def shown(self) -> list[tuple[Table, bool]]:
        """The tables that there are, and whether each is folded."""
        both = [(table, False) for table in self.tables] + [(table, True) for table in self.folded]
        return [(table, folded) for table, folded in both if table and table.rows]


def html(facts: Facts) -> str:
    """The page of a run."""
    legend = charts.legend(facts.report) if facts.report else []
    return page("Chase report", facts, judge(facts), (*_measured(facts), *_made(facts)), GLOSSARY, legend=legend)


def page(
    kind: str,
    facts: Facts,
    verdict: Verdict,
    parts: Iterable[Part],
    glossary: Sequence[tuple[str, str]],
    *,
    legend: Sequence[Mapping[str, str]] = (),
) -> str:
    """One file with its style, its script and its charts inside; `kind` says what it is."""
    import jinja2
    from plotly.offline import get_plotlyjs

    here = files(__package__)
    css, script, template = ((here / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html"))
    filled = [part for part in parts if part.drawn or part.shown]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["coded"] = _coded
    return environment.from_string(template).render(
        kind=kind,
        facts=facts,
        verdict=verdict,
        parts=filled,
        legend=legend,
        drawn=finite([chart.to_dict() for part in filled for chart in part.drawn]),
        glossary=glossary,
        css=css,
        script=script,
        plotly=get_plotlyjs(),
    )


def _coded(text: str) -> Markup:
    """Text whose stretches between backticks are code."""
    parts = enumerate(text.split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else escape(part) for n, part in parts)


def _measured(facts: Facts) -> Iterable[Part]:
    """The parts that come from bench.json."""
    if facts.report is not None:
        yield from _results(facts.report)
        yield from _background(facts.report)


def _results(report: Report) -> Iterable[Part]:
    made = tables(report)
    yield Part(
        anchor="gain",
        short="Speed-up",
        heading="Speed-up over dense",
        text="Against the dense network on the same runtime, timed in turns. Dot and bar: the median of paired ratios "
        "and its 95 % interval. Stroke: what the MACs promise.",
        charts=charts.gain_charts(report),
        tables=[made.get("gain")],
        legend=True,
    )
    yield Part(
        anchor="accuracy-latency",
        short="Accuracy, latency",
        heading="Accuracy against latency",
        text="Up and to the left is better. Bars: the 95 % interval of the median." + _not_drawn(report),
        charts=charts.accuracy_charts(report, "latency"),
        legend=True,
    )
    yield Part(
        anchor="accuracy-throughput",
        short="Accuracy, throughput",
        heading="Accuracy against throughput",
        text="Up and to the right is better." + _not_drawn(report),
        charts=charts.accuracy_charts(report, "throughput"),
        tables=[made.get("quality")],
        legend=True,
    )


def _background(report: Report) -> Iterable[Part]:
    made = tables(report)
    yield Part(
        anchor="latency",
        short="Calls",
        heading="Latency, call by call",
        text="Every timing is a point (of short calls the mean of several); the box holds the middle half. Two clouds "
        "mean that something else ran, or that the clock changed.",
        charts=charts.distribution_charts(report),
        tables=[made["speed"]],
        folded=[warning_table(report)],
        stacked=True,
        legend=True,
    )
    yield Part(
        anchor="cost",
        short="Cost",
        heading="What it costs",
        text="Theoretical MACs credit every zero; GPU-supported MACs are what a processor executes.",
        tables=[made["cost"]],
    )
    yield _profiles(report)
    clocks = history.clocks_charts(report.clocks)
    yield Part(anchor="gpu", short="GPU", heading="The GPU while it was timed", charts=clocks)


def _not_drawn(report: Report) -> str:
    """Which artifacts have no accuracy, and so no point."""
    unknown = list(dict.fromkeys(row.artifact for row in report.rows if row.accuracy is None))
    return f" Not drawn, since their accuracy is not known: {', '.join(unknown)}." if unknown else ""


def _profiles(report: Report) -> Part:
    baselines, profiles = Roles.of(report).baselines, report.profiles
    said = [f"{name}: {text}." for name, rows in profiles.items() if name not in baselines for text in wasteful(rows)]
    return Part(
        anchor="profile",
        short="Profile",
        heading="Where the time goes",
        text="Layers by their share of the time. Where that is far above their share of the MACs, time is wasted.",
        notes=[Note(text, "bad") for text in said],
        charts=[history.profile_chart(name, rows, n) for n, (name, rows) in enumerate(profiles.items()) if rows],
        folded=profile_tables(report),
        stacked=True,
    )


def _made(facts: Facts) -> Iterable[Part]:
    """The parts that come from the other files of the run."""
    widths = widths_of(facts.network)
    yield Part(
        anchor="widths",
        short="Widths",
        heading="Widths of the layers",
        text=_width_words(widths),
        charts=[history.widths_chart(widths)],
        folded=[width_table(widths)],
        stacked=True,
    )
    yield Part(
        anchor="training",
        short="Training",
        heading="Training",
        charts=[history.sparsity_chart(facts.epochs), *history.learning_charts(facts)],
        tables=[training_table(facts.network)],
    )
    yield Part(
        anchor="origin",
        short="Origin",
        heading="Environment, commands and hashes",
        tables=[environment_table(facts), command_table(facts), artifact_table(facts), file_table(facts)],
    )


def _width_words(widths: Sequence[Width]) -> str:
    off = sum(not width.aligned for width in widths)
    if not off:
        return f"All widths are multiples of {ALIGNMENT}, or as they were."
    return (
        f"{off} of {len(widths)} widths are no multiple of {ALIGNMENT}, which makes several runtimes leave their fast "
        f"kernels; `chase slim --round-to {ALIGNMENT}` pads them with zeros, which changes no answer."
    )
