"""Charts of what happened before anything was timed: training, widths, clocks, and where the time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chase.benchmarks.layers import ALIGNMENT
from chase.benchmarks.page.charts import WIDE, Chart, Spec, axis, log_axis, names_axis, words
from chase.benchmarks.page.facts import Epochs, Facts
from chase.benchmarks.page.widths import Width

LAYERS = 20  # of a profile, those that take longest


def sparsity_chart(epochs: Epochs) -> Chart | None:
    """Sparsity and channel sparsity over the steps, with the moments at which the masks changed."""
    if not epochs:
        return None
    steps = [epoch["step"] for epoch in epochs]
    events = [event for epoch in epochs for event in epoch.get("events", ())]
    data = [
        line("weights", steps, _percent(epochs, "sparsity"), "--c1"),
        line("channels", steps, _percent(epochs, "channel_sparsity"), "--c2"),
    ]
    if events:
        tick = {"symbol": "line-ns-open", "size": 7, "color": "--muted"}
        at = {"x": [event["step"] for event in events], "y": [0] * len(events)}
        hover = "step %{x}: masks change<extra></extra>"
        data.append({"type": "scatter", "mode": "markers", "name": "events", "marker": tick, **at})
        data[-1] |= {"hovertemplate": hover}
    layout = {"xaxis": axis("training step"), "yaxis": axis("share, %", range=[-4, 104])}
    return Chart("sparsity", f"Sparsity, with {len(events)} mask events", tuple(data), layout, tall=340)


def learning_charts(facts: Facts) -> list[Chart]:
    """Validation accuracy and training loss by epoch, of the run and of its dense twin."""
    found = []
    for field, heading in (("validation_accuracy", "validation accuracy, %"), ("loss", "training loss")):
        data = []
        for epochs, name, colour in ((facts.epochs, "sparse", "--c1"), (facts.dense_epochs, "dense twin", "--c7")):
            points = [(epoch["epoch"], epoch[field]) for epoch in epochs if epoch.get(field) is not None]
            if points:
                x, y = zip(*points, strict=True)
                data.append(line(name, x, y, colour))
        if data:
            values = [value for trace in data for value in trace["y"]]
            wide = field == "loss" and 0 < WIDE * min(values) < max(values)
            layout = {"xaxis": axis("epoch"), "yaxis": log_axis(heading, values) if wide else axis(heading)}
            caption = heading.partition(",")[0].capitalize()
            found.append(Chart(field.replace("_", "-"), caption, tuple(data), layout, tall=340))
    return found


def line(name: str, x: Sequence[Any], y: Sequence[Any], colour: str) -> Spec:
    """A line with its points, named in the legend."""
    spec = {"type": "scatter", "mode": "lines+markers", "name": name, "x": list(x), "y": list(y)}
    return spec | {"line": {"color": colour, "width": 2}, "marker": {"color": colour, "size": 5}, "showlegend": True}


def _percent(epochs: Epochs, field: str) -> list[float]:
    return [100 * epoch[field] for epoch in epochs]


def widths_chart(widths: Sequence[Width]) -> Chart | None:
    """The width of every layer before and after; those off the grid are striped."""
    if not widths:
        return None
    hover = [words(f"{width.layer}: {width.slim} of {width.dense} channels") for width in widths]
    common = {"hovertext": hover, "hoverinfo": "text", "textposition": "none"}
    data = [
        _bar("dense", [width.dense for width in widths], "--bar") | common,
        *(_kept(widths, aligned) | common for aligned in (True, False) if any(w.aligned is aligned for w in widths)),
    ]
    layout = {
        "barmode": "overlay",
        "bargap": 0.35,
        "xaxis": axis("channels", rangemode="tozero"),
        "yaxis": names_axis([width.layer for width in widths]),
    }
    return Chart("widths", "", tuple(data), layout, tall=110 + 20 * len(widths))


def _kept(widths: Sequence[Width], aligned: bool) -> Spec:
    """The bars of the widths on the grid, or of those that are not."""
    name = "slim" if aligned else f"slim, no multiple of {ALIGNMENT}"
    bar = _bar(name, [w.slim if w.aligned is aligned else None for w in widths], "--c1" if aligned else "--c2")
    if not aligned:
        bar["marker"]["pattern"] = {
            "shape": "/",
            "fgcolor": "--card",
            "fillmode": "overlay",
            "size": 6,
            "solidity": 0.3,
        }
    return bar


def _bar(name: str, values: Sequence[float | None], colour: str) -> Spec:
    bar = {"type": "bar", "orientation": "h", "name": name, "showlegend": True, "marker": {"color": colour}}
    return bar | {"x": list(values), "y": list(range(len(values)))}


def profile_chart(artifact: str, layers: Sequence[Mapping[str, Any]], position: int) -> Chart:
    """The share of time and of MACs of the layers that take longest: a long bar over a short one is waste."""
    slowest = sorted(layers, key=lambda layer: -layer["share_of_time"])[:LAYERS]
    data = []
    for name, field, colour in (("time", "share_of_time", "--c2"), ("MACs", "share_of_macs", "--c1")):
        bar = _bar(name, [100 * (layer[field] or 0) for layer in slowest], colour)
        data.append(bar | {"hovertemplate": f"%{{x:.2f}} % of {name}<extra></extra>"})
    layout = {
        "barmode": "group",
        "bargap": 0.3,
        "xaxis": axis("share of the whole, %", rangemode="tozero"),
        "yaxis": names_axis([f"{layer['layer']} ({layer['op']})" for layer in slowest]),
    }
    return Chart(f"profile-{position}", artifact, tuple(data), layout, tall=110 + 30 * len(slowest))


def clocks_charts(samples: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The GPU's clock, temperature and power while it was timed."""
    seconds = [sample["t_s"] for sample in samples]
    found = []
    for field, heading in (("sm_mhz", "clock, MHz"), ("temperature_c", "temperature, °C"), ("power_w", "power, W")):
        values = [sample[field] for sample in samples]
        if any(value is not None for value in values):
            trace = line(heading, seconds, values, "--c1") | {"mode": "lines", "showlegend": False}
            layout = {"xaxis": axis("seconds"), "yaxis": axis(heading, rangemode="tozero")}
            found.append(Chart(f"gpu-{field}", heading.partition(",")[0].capitalize(), (trace,), layout, tall=240))
    return found
