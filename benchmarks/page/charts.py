"""Charts: specifications for Plotly, with the page's colours named as CSS variables that its script fills in."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chase.benchmarks.comparison import median_interval
from chase.benchmarks.page.roles import Role, Roles, baseline_of, batch_sizes, key, settings, short_names, title
from chase.benchmarks.report import Report, Row

COLOURS = 7
SHAPES = ("circle", "square", "triangle-up", "pentagon")
LONGEST = 26  # characters of a name beside an axis; the whole name shows when it is pointed at
WIDE = 20  # the ratio of two values above which an axis is logarithmic
Spec = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A chart: its name in the page, what it shows, and Plotly's data and layout. `tall` is its height in pixels."""

    name: str
    caption: str
    data: tuple[Spec, ...]
    layout: Spec
    tall: int = 320

    def to_dict(self) -> Spec:
        """What the page's script draws."""
        return {"name": self.name, "data": list(self.data), "layout": self.layout}


def words(text: str) -> str:
    """A name as Plotly shows it letter by letter; it reads some HTML otherwise."""
    return html.escape(text, quote=False)


def axis(heading: str, **settings: Any) -> Spec:
    """An axis with its heading."""
    return {"title": {"text": heading}, **settings}


def names_axis(names: Sequence[str]) -> Spec:
    """A vertical axis with a name at 0, 1, 2, …, the first one at the top; equal names stay apart."""
    short = [words(name if len(name) <= LONGEST else "…" + name[1 - LONGEST :]) for name in names]
    places = list(range(len(names)))
    span = [len(names) - 0.4, -0.6]
    return {"tickvals": places, "ticktext": short, "range": span, "zeroline": False, "showgrid": False}


def log_axis(heading: str, values: Sequence[float]) -> Spec:
    """A logarithmic axis with ticks at 1, 2 and 5, for values above 0."""
    first, last = (math.floor(math.log10(end)) for end in (min(values), max(values)))
    ticks = [float(f"{digit}e{power}") for power in range(first, last + 1) for digit in (1, 2, 5)]
    return axis(heading, type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


@dataclass(frozen=True)
class Palette:
    """How rows look: a colour for each runtime and precision, filled if slim, hollow if dense, a diamond if neither."""

    roles: Roles
    order: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, report: Report) -> Palette:
        """The palette of a report."""
        return cls(Roles.of(report), settings(report.rows))

    def colour(self, row: Row) -> str:
        """The name of the CSS variable."""
        return f"--c{self.order.index((row.runtime, row.precision)) % COLOURS + 1}"

    def marker(self, row: Row, size: int = 11) -> Spec:
        """Plotly's marker."""
        role, cycle = self.roles(row), self.order.index((row.runtime, row.precision)) // COLOURS
        shape = "diamond" if role is Role.OTHER else SHAPES[cycle % len(SHAPES)]
        hollow = "" if role is Role.SLIM else "-open"
        line = {"width": 2, "color": self.colour(row)}
        return {"color": self.colour(row), "symbol": shape + hollow, "size": size, "line": line}


def legend(report: Report) -> list[dict[str, str]]:
    """What the colours mean: the label and the CSS variable."""
    palette = Palette.of(report)
    first = {(row.runtime, row.precision): row for row in reversed(report.rows)}
    return [{"label": " ".join(pair), "colour": palette.colour(first[pair])} for pair in palette.order]


def accuracy_charts(report: Report, field: str) -> list[Chart]:
    """Accuracy against latency or throughput, a chart for each batch size, on the same accuracy axis."""
    known = [row for row in report.rows if row.accuracy is not None]
    if not known:
        return []
    scores = [row.accuracy or 0 for row in known]
    margin = max(0.5, 0.25 * (max(scores) - min(scores)))
    span = [min(scores) - margin, min(100.5, max(scores) + margin)]
    return [
        _accuracy_chart(report, [row for row in known if row.batch_size == size], field, span)
        for size in batch_sizes(known)
    ]


def _accuracy_chart(report: Report, rows: Sequence[Row], field: str, span: Sequence[float]) -> Chart:
    palette, x = Palette.of(report), _latency if field == "latency" else _throughput
    data = [*_arrows(report, rows, x), *(_point(palette, row, x(row)) for row in rows)]
    unit = "median latency, ms" if field == "latency" else "throughput, images/s"
    values = [x(row)["x"][0] for row in rows]
    across = log_axis(unit, values) if max(values) > WIDE * min(values) else axis(unit, rangemode="tozero")
    layout = {"xaxis": across, "yaxis": axis("top-1 accuracy, %", range=list(span))}
    size = rows[0].batch_size
    return Chart(f"accuracy-{field}-{size}", f"Batch size {size}", tuple(data), layout)


def _latency(row: Row) -> Spec:
    low, high = median_interval(row.samples_ms)
    middle = row.latency_ms["p50"]
    return {"x": [middle], "error_x": bars(middle, low, high)}


def _throughput(row: Row) -> Spec:
    return {"x": [row.throughput]}


def bars(middle: float, low: float, high: float) -> Spec:
    """Error bars from low to high."""
    ends = {"array": [high - middle], "arrayminus": [middle - low]}
    return {"type": "data", "symmetric": False, "thickness": 3, "width": 0, **ends}


def _point(palette: Palette, row: Row, where: Spec) -> Spec:
    other = palette.roles(row) is Role.OTHER
    if "error_x" in where:
        where = where | {"error_x": where["error_x"] | {"color": palette.colour(row)}}
    return {
        "type": "scatter",
        "mode": "markers+text" if other else "markers",
        "name": words(title(row)),
        "text": [words(row.artifact) if other else ""],
        "textposition": "bottom center",
        "cliponaxis": False,
        "y": [row.accuracy],
        "marker": palette.marker(row),
        "hovertemplate": f"{words(title(row))}<br>%{{x:.4g}}, %{{y:.2f}} %<extra></extra>",
        **where,
    }


def _arrows(report: Report, rows: Sequence[Row], x: Callable[[Row], Spec]) -> list[Spec]:
    """A thin line from each slim point to the dense one that it is compared with."""
    palette, lines = Palette.of(report), []
    for row in rows:
        base = baseline_of(row, report) if palette.roles(row) is Role.SLIM else None
        if base is not None and base.accuracy is not None:
            ends = {"x": [*x(base)["x"], *x(row)["x"]], "y": [base.accuracy, row.accuracy]}
            line = {"color": palette.colour(row), "width": 1, "dash": "dot"}
            lines.append({"type": "scatter", "mode": "lines", "line": line, "hoverinfo": "skip", **ends})
    return lines


def gain_charts(report: Report) -> list[Chart]:
    """Speed-ups with their intervals, and what the MACs promise; a chart for each batch size, on the same axis."""
    rows = [row for row in report.rows if row.speedup_vs_dense]
    gains: list[Mapping[str, Any]] = [row.speedup_vs_dense or {} for row in rows]
    most = max((max(gain["ci95"][1], gain.get("mac_ratio") or 0) for gain in gains), default=1.0)
    return [_gain_chart(report, [row for row in rows if row.batch_size == size], most) for size in batch_sizes(rows)]


def _gain_chart(report: Report, rows: Sequence[Row], most: float) -> Chart:
    palette, names = Palette.of(report), short_names(report)
    promised = [(row.speedup_vs_dense or {}).get("mac_ratio") for row in rows]
    data = [_promise(promised)] if any(promised) else []
    data += [_gain(palette, row, place) for place, row in enumerate(rows)]
    line = {"color": "--muted", "width": 1}
    layout = {
        "xaxis": axis("speed-up, ×", range=[0, max(1.1, 1.06 * most)]),
        "yaxis": names_axis([names[key(row)] for row in rows]),
        "shapes": [
            {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "line": line, "layer": "below"}
        ],
    }
    size = rows[0].batch_size
    return Chart(f"gain-{size}", f"Batch size {size}", tuple(data), layout, tall=96 + 34 * len(rows))


def _promise(ratios: Sequence[float | None]) -> Spec:
    tick = {"symbol": "line-ns-open", "size": 16, "color": "--ink", "line": {"width": 2, "color": "--ink"}}
    hover = "the MACs promise %{x:.2f}×<extra></extra>"
    places = {"x": list(ratios), "y": list(range(len(ratios)))}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "what the MACs promise",
        "marker": tick,
        "hovertemplate": hover,
    } | places


def _gain(palette: Palette, row: Row, place: int) -> Spec:
    gain: Mapping[str, Any] = row.speedup_vs_dense or {}
    low, high = gain["ci95"]
    name = words(title(row))
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [gain["median"]],
        "y": [place],
        "error_x": bars(gain["median"], low, high) | {"color": palette.colour(row)},
        "marker": palette.marker(row, size=8),
        "hovertemplate": f"{name}<br>%{{x:.3f}}× ({low:.3f}–{high:.3f}): {gain['verdict']}<extra></extra>",
    }


def distribution_charts(report: Report) -> list[Chart]:
    """Every timed call, a chart for each batch size: box and points for each artifact."""
    return [
        _distribution(report, [r for r in report.rows if r.batch_size == size]) for size in batch_sizes(report.rows)
    ]


def _distribution(report: Report, rows: Sequence[Row]) -> Chart:
    palette = Palette.of(report)
    every = [sample for row in rows for sample in row.samples_ms]
    heading = "latency of a call, ms"
    across = log_axis(heading, every) if max(every) > WIDE * min(every) else axis(heading, rangemode="tozero")
    data = tuple(_box(palette, row, place) for place, row in enumerate(rows))
    names = short_names(report)
    layout = {"xaxis": across, "yaxis": names_axis([names[key(row)] for row in rows])}
    size = rows[0].batch_size
    return Chart(f"latency-{size}", f"Batch size {size}", data, layout, tall=90 + 40 * len(rows))


def _box(palette: Palette, row: Row, place: int) -> Spec:
    filled = palette.roles(row) is Role.SLIM
    return {
        "type": "box",
        "orientation": "h",
        "name": words(title(row)),
        "x": [float(f"{sample:.4g}") for sample in row.samples_ms],
        "y0": place,
        "width": 0.55,
        "boxpoints": "all",
        "jitter": 0.8,
        "pointpos": 0,
        "line": {"color": palette.colour(row), "width": 1.5},
        "fillcolor": palette.colour(row) + "-soft" if filled else "rgba(0,0,0,0)",
        "marker": {"color": palette.colour(row), "size": 3, "opacity": 0.45},
        "hoverinfo": "x+name",
    }
