"""The paper's tables as definitions that run: which trainings, what is measured, and what the paper prints beside it.

`TABLES` holds them by name; `scales` says how much of a training a machine can afford, and `runner` runs them.
"""

from __future__ import annotations

from collections.abc import Callable

from chase.benchmarks.paper import accuracy, beyond, channels, figures, speed
from chase.benchmarks.paper.table import Table
from chase.registry import Registry

TABLES: Registry[Callable[[], Table]] = Registry(
    "table",
    {
        "table2": channels.table2,
        "table3": accuracy.table3,
        "table4": speed.table4,
        "table5": speed.table5,
        "table6": accuracy.table6,
        "table7": accuracy.table7,
        "table8": accuracy.table8,
        "table12": speed.table12,
        "table14": channels.table14,
        "table15": speed.table15,
        "figure2": channels.figure2,
        "figure3": figures.figure3,
        "figure4": figures.figure4,
        "figure5": figures.figure5,
        "methods": beyond.methods,
        "criteria": beyond.criteria,
        "baselines": beyond.baselines,
        "improvements": beyond.improvements,
        "compaction": beyond.compaction,
    },
)
