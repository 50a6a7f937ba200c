"""Tables of accuracies on CIFAR-10/100: 3 (all methods), 6 (β), 7 (GACP on SET and RigL), 8 (ΔT)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chase.benchmarks.paper import published
from chase.benchmarks.paper.blocks import SPARSITY, chase, cifar, trained_by
from chase.benchmarks.paper.measures import ACCURACY
from chase.benchmarks.paper.published import Published
from chase.benchmarks.paper.table import Cell, Table, Training
from chase.recipe import Recipe

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "SynFlow": ("synflow", {}),
    "GraSP": ("grasp", {}),
    "SNIP": ("snip", {}),
    "Chase+GraSP (S_c = 0.5)": ("chase-grasp", {"channel_sparsity": 0.5}),
    "Chase+SNIP (S_c = 0.5)": ("chase-snip", {"channel_sparsity": 0.5}),
    "Deep-R": ("deep-r", {}),
    "SET": ("set", {}),
    "SET+GACP (S_c = 0.5)": ("set-gacp", {"channel_sparsity": 0.5}),
    "RigL": ("rigl", {}),
    "RigL+GACP (S_c = 0.5)": ("rigl-gacp", {"channel_sparsity": 0.5}),
    "MEST": ("mest", {}),
    "Chase (S_c = 0)": ("chase", {}),
    "Chase (S_c = 0.5)": ("chase", {"channel_sparsity": 0.5}),
}
"""The paper's names of methods, and ours with their settings."""

DEFAULTS = "Methods other than Chase explore as they do by default; the paper does not state their settings."


def training(recipe: Recipe, label: str, sparsity: str) -> Training:
    """One cell of Tables 3 and 7: the recipe by a method, as the paper calls it, at a level of sparsity."""
    if label == "Dense":
        return trained_by(recipe, "dense")
    name, settings = METHODS[label]
    return trained_by(recipe, name, sparsity=SPARSITY[sparsity], **settings)


def _by_method(numbers: Mapping[str, Mapping[str, Mapping[str, Published | None]]]) -> Iterator[Cell]:
    """A cell for each number by network, method, data and sparsity."""
    for model, rows in numbers.items():
        for label, values in rows.items():
            for column, paper in values.items():
                data, _, sparsity = column.partition(" ")
                made = training(cifar(model, data), label, sparsity)
                yield Cell(row=f"{model}: {label}", column=column, training=made, measure=ACCURACY, paper=paper)


def table3() -> Table:
    """Every method on VGG-19, ResNet-50 and ResNet-20."""
    title = "Table 3: test accuracy (%) of sparse networks on CIFAR-10/100"
    notes = (DEFAULTS, "The paper gives no hyperparameters for ResNet-20; it has those of ResNet-50 here.")
    return Table(title=title, cells=tuple(_by_method(published.TABLE3)), notes=notes)


def table7() -> Table:
    """Gradual amenable channel pruning on top of SET and RigL."""
    title = "Table 7: gradual amenable channel pruning (GACP) with SET and RigL, test accuracy (%)"
    return Table(title=title, cells=tuple(_by_method(published.TABLE7)), notes=(DEFAULTS,))


def _by_setting(
    numbers: Mapping[str, Mapping[str, Mapping[str, Published | None]]], setting: str, symbol: str, **fixed: Any
) -> Iterator[Cell]:
    """A cell for each number by network, value of one setting of Chase, and sparsity."""
    for model, rows in numbers.items():
        for text, values in rows.items():
            for sparsity, paper in values.items():
                changed = {setting: float(text) if "." in text else int(text), **fixed}
                made = chase(cifar(model, "CIFAR-100"), sparsity=SPARSITY[sparsity], channel_sparsity=0.5, **changed)
                row = f"{model}: {symbol} = {text}"
                yield Cell(row=row, column=sparsity, training=made, measure=ACCURACY, paper=paper)


def table6() -> Table:
    """The minimum layer ratio β."""
    cells = tuple(_by_setting(published.TABLE6, "min_channel_ratio", "β", channel_every=4000))
    return Table(title="Table 6: minimum layer ratio β, CIFAR-100, S_c = 0.5, test accuracy (%)", cells=cells)


def table8() -> Table:
    """The channel pruning frequency ΔT."""
    cells = tuple(_by_setting(published.TABLE8, "channel_every", "ΔT", min_channel_ratio=0.5))
    return Table(title="Table 8: channel pruning frequency ΔT, CIFAR-100, S_c = 0.5, test accuracy (%)", cells=cells)
