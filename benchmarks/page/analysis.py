"""The page of an analysis: amenable channels over training as heat maps (paper Fig. 2), and prunability (Table 2)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from chase.benchmarks.analysis import Analysis, history_table, mean
from chase.benchmarks.page.charts import COLOURS, Chart, Spec, axis, bars, names_axis, words
from chase.benchmarks.page.facts import Facts
from chase.benchmarks.page.history import line
from chase.benchmarks.page.notes import Note
from chase.benchmarks.page.render import Part, page
from chase.benchmarks.page.tables import plain
from chase.benchmarks.page.verdict import Figure, Verdict
from chase.benchmarks.prunability import Prunability, Pruned, collapses, prunability_table
from chase.files import atomic, write_json
from chase.run import Run

MEASURES = {"umm": "Unmasked mean magnitude (UMM)", "ws": "Weight sparsity (WS)"}
LIMITS = {"ws": " WS has little room above high initial sparsity: from 90 % it can rise by 11 % at most."}
GLOSSARY = (
    ("channel", "One output channel of a convolution or linear layer: a filter."),
    ("sparse amenable", "More than v sparser than at the start of the training. Removed channels are, at every v."),
    ("WS", "The share of a channel's weights that are masked; amenable where it rose by more than v times its start."),
    ("UMM", "The mean magnitude of a channel's weights, zeros counted; amenable where it fell by more than v of it."),
    ("MMM", "The mean magnitude of the weights of a channel that are not masked."),
    ("prunability", "Accuracy after some channels left at once, ranked over all layers, with no training afterwards."),
    ("reverse", "The channels that the criterion would keep leave first."),
)


def write_analysis(run: Run, analysis: Analysis) -> Path:
    """Write analysis.json into a run's folder and the page beside it; where the page is.

    Raises:
        OutputError: if they cannot be written.
    """
    target, text = run.analysis.with_suffix(".html"), analysis_page(analysis)
    write_json(run.analysis, analysis.to_dict())
    run.record(run.analysis, parents=[run.metrics, run.checkpoint] if run.checkpoint.is_file() else [run.metrics])
    with atomic(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return target


def analysis_page(analysis: Analysis) -> str:
    """The page of a run's analysis, one file that needs nothing else."""
    facts = Facts(
        name=analysis.name, folder=analysis.folder, network={"model": analysis.model, "about": analysis.about}
    )
    return page("Chase analysis", facts, _verdict(analysis), _parts(analysis), GLOSSARY)


def _verdict(analysis: Analysis) -> Verdict:
    """The first sentences and the large numbers."""
    said, figures = [], list[Figure]()
    if analysis.threshold is not None:
        layers = analysis.history.layers(analysis.metric, analysis.threshold)
        most = max(layers, key=lambda layer: layers[layer][-1])
        at = f"{analysis.metric.upper()}, v = {analysis.threshold}"
        said.append(f"In the end {_percent(mean(layers))} of a layer's channels are sparse amenable ({at}).")
        figures.append(Figure(_percent(mean(layers)), "amenable channels, mean over layers", at))
        figures.append(Figure(_percent(layers[most][-1]), "in the layer with most", most))
    if (found := analysis.prunability) is not None:
        best, criteria = _best(found), len({row.criterion for row in found.rows})
        said.append(
            f"Without {_percent(best.share)} of its channels it is {best.accuracy:.2f} % accurate by the best of "
            f"{criteria} criteria ({best.criterion}), and {found.unpruned:.2f} % with all of them."
        )
        figures.append(Figure(f"{found.unpruned:.2f} %", "accuracy unpruned", _where(found)))
        figures.append(Figure(f"{best.accuracy:.2f} %", f"without {_percent(best.share)}", f"by {best.criterion}"))
    return Verdict(" ".join(said), figures=tuple(figures))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _best(found: Prunability) -> Pruned:
    """The criterion that keeps most at the largest share."""
    largest = max(row.share for row in found.rows)
    return max((row for row in found.rows if row.share == largest), key=lambda row: row.accuracy)


def _where(found: Prunability) -> str:
    return f"{found.images} images of the {found.split} split"


def _parts(analysis: Analysis) -> Iterable[Part]:
    history = analysis.history
    if history.shares:
        yield Part(
            anchor="training",
            short="Training",
            heading="Sparse amenable channels over training",
            text="The share of each layer's channels that are more than v sparser than at the start, as a mean over "
            "layers.",
            charts=[_mean_chart(analysis, metric) for metric in history.shares],
        )
    for metric, thresholds in history.shares.items():
        yield Part(
            anchor=metric,
            short=metric.upper(),
            heading=f"{MEASURES.get(metric, metric)}, layer by layer",
            text=f"The stronger the colour, the more of a layer's channels are amenable.{LIMITS.get(metric, '')}",
            charts=[_heat_map(analysis, metric, v) for v in thresholds],
            folded=[plain(f"v = {v}", *history_table(history, metric, v), places=2) for v in thresholds],
        )
    if analysis.prunability is not None:
        yield _prunability_part(analysis.prunability)


def _mean_chart(analysis: Analysis, metric: str) -> Chart:
    epochs = analysis.history.epochs
    data = [
        line(f"v = {v}", epochs, [100 * mean(layers, n) for n in range(len(epochs))], f"--c{place % COLOURS + 1}")
        for place, (v, layers) in enumerate(analysis.history.shares[metric].items())
    ]
    layout = {"xaxis": axis("epoch"), "yaxis": axis("amenable channels, %", range=[-4, 104])}
    return Chart(f"amenable-{metric}", MEASURES.get(metric, metric), tuple(data), layout, tall=340)


def _heat_map(analysis: Analysis, metric: str, v: str) -> Chart:
    layers = analysis.history.shares[metric][v]
    names = [words(layer) for layer in layers]
    data: Spec = {
        "type": "heatmap",
        "x": list(analysis.history.epochs),
        "y": names,
        "z": [[round(100 * share, 2) for share in shares] for shares in layers.values()],
        "zmin": 0,
        "zmax": 100,
        "colorscale": [[0, "--page"], [1, "--c1"]],
        "colorbar": {"thickness": 10, "outlinewidth": 0, "ticksuffix": " %"},
        "hovertemplate": "%{y}, epoch %{x}: %{z:.1f} %<extra></extra>",
    }
    vertical = names_axis(list(layers)) | {"type": "category", "tickvals": names}
    layout = {"xaxis": axis("epoch", showgrid=False), "yaxis": vertical}
    return Chart(f"{metric}-{v.replace('.', '-')}", f"v = {v}", (data,), layout, tall=100 + 18 * len(layers))


def _prunability_part(found: Prunability) -> Part:
    collapsed = collapses(found)
    skipped = "".join(f" Left out: {name}, since {reason}." for name, reason in found.left_out.items())
    return Part(
        anchor="prunability",
        short="Prunability",
        heading="Prunability",
        text=f"Top-1 accuracy on {_where(found)} after channels left at once, those with the lowest scores over all "
        "layers first, with no training afterwards. Stroke: the unpruned network. Bar: the standard deviation over "
        f"draws.{skipped}",
        notes=[Note(collapsed, "bad")] if collapsed else [],
        charts=[_prunability_chart(found, share) for share in found.shares],
        tables=[plain("Accuracy by criterion", *prunability_table(found))],
    )


def _prunability_chart(found: Prunability, share: float) -> Chart:
    rows = [row for row in found.rows if row.share == share]
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": words(row.criterion),
            "x": [row.accuracy],
            "y": [place],
            "error_x": bars(row.accuracy, row.accuracy - (row.std or 0), row.accuracy + (row.std or 0))
            | {"color": "--c1"},
            "marker": {"color": "--c1", "size": 9},
            "hovertemplate": f"{words(row.criterion)}: %{{x:.2f}} %<extra></extra>",
        }
        for place, row in enumerate(rows)
    ]
    stroke = {"type": "line", "x0": found.unpruned, "x1": found.unpruned, "yref": "paper", "y0": 0, "y1": 1}
    layout = {
        "xaxis": axis("top-1 accuracy, %", range=[0, max(found.unpruned, *(row.accuracy for row in rows)) + 4]),
        "yaxis": names_axis([row.criterion for row in rows]),
        "shapes": [stroke | {"line": {"color": "--muted", "width": 1}, "layer": "below"}],
    }
    caption = f"{100 * share:g} % of the channels pruned"
    return Chart(f"pruned-{100 * share:g}".replace(".", "-"), caption, tuple(data), layout, tall=96 + 26 * len(rows))
