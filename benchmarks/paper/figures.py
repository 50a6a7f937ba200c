"""Figures 3 (channel sparsity), 4 (ablation) and 5 (initial sparsity), of which the paper prints no numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

from chase.benchmarks.paper.blocks import CIFAR, SPARSITY, chase, cifar, trained_by
from chase.benchmarks.paper.measures import ACCURACY, EXECUTED_MACS
from chase.benchmarks.paper.table import Cell, Table

NO_NUMBERS = "The figure has no printed numbers."
SWITCHES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "GACP": ({"channel_sparsity": 0.0}, {"channel_sparsity": 0.5}),
    "SM": ({"soft_bound": 0.0}, {"soft_bound": 0.05}),
    "GE": ({"scope": "layer", "allocation": "layer"}, {"scope": "global", "allocation": "global"}),
}
"""The three switches of Fig. 4 over RigL, off and on: channel pruning, soft memory bound, global exploration."""


def figure3() -> Table:
    """Chase with 20 to 70 % of the channels gone, beside RigL and SET with all of them."""
    cells = []
    for model, sparsity in product(("VGG-19", "ResNet-50"), ("95 %", "98 %")):
        recipe, level = cifar(model, "CIFAR-100"), SPARSITY[sparsity]
        made = {label: trained_by(recipe, label.lower(), sparsity=level) for label in ("SET", "RigL")}
        for channels in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
            made[f"Chase (S_c = {channels})"] = chase(recipe, sparsity=level, channel_sparsity=channels)
        for label, training in made.items():
            row = f"{model}: {label}"
            cells += [Cell(row=row, column=sparsity, training=training, measure=ACCURACY)]
            cells += [Cell(row=row, column=f"{sparsity}: MACs", training=training, measure=EXECUTED_MACS)]
    title = "Figure 3: test accuracy (%) and executed MACs by channel sparsity, CIFAR-100"
    return Table(title=title, cells=tuple(cells), notes=(NO_NUMBERS,))


def figure4() -> Table:
    """Every combination of the three switches: none is RigL, all are Chase."""
    cells = []
    for model, data, sparsity in product(("VGG-19", "ResNet-50"), CIFAR, ("90 %", "95 %", "98 %")):
        for states in product((False, True), repeat=len(SWITCHES)):
            names = [name for name, on in zip(SWITCHES, states, strict=True) if on]
            settings: dict[str, Any] = {"sparsity": SPARSITY[sparsity]}
            for choices, on in zip(SWITCHES.values(), states, strict=True):
                settings |= choices[on]
            made = chase(cifar(model, data), **settings)
            row = f"{model}: {' + '.join(['RigL', *names])}"
            cells.append(Cell(row=row, column=f"{data} {sparsity}", training=made, measure=ACCURACY))
    return Table(
        title="Figure 4: ablation of GACP, soft memory bound (SM) and global exploration (GE), test accuracy (%)",
        cells=tuple(cells),
        notes=(NO_NUMBERS, "RigL explores here when the paper's recipe says so, as Chase does."),
    )


def figure5() -> Table:
    """Chase from a dense network, and from sparser and sparser ones."""
    recipe = cifar("ResNet-18", "CIFAR-100")
    rows = {
        f"initial sparsity {initial}": chase(recipe, sparsity=0.9, channel_sparsity=0.4, initial_sparsity=initial)
        for initial in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
    }
    dense = rows["initial sparsity 0.0"]
    rows["initial sparsity 0.0, pretrained"] = replace(dense, before={"start_from": trained_by(recipe, "dense")})
    cells = [
        Cell(row=row, column=column, training=made, measure=measure)
        for row, made in rows.items()
        for column, measure in (("accuracy", ACCURACY), ("executed MACs", EXECUTED_MACS))
    ]
    return Table(
        title="Figure 5: initial sparsity, ResNet-18 on CIFAR-100, S_c = 0.4, test accuracy (%)",
        cells=tuple(cells),
        notes=(
            NO_NUMBERS,
            "The paper does not state the final sparsity; 90 % here, reached at τ_stop.",
            "Pretrained: from the weights of a dense training of the same length, which the figure does not have.",
        ),
    )
