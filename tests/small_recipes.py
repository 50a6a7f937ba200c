"""A recipe that trains in a second, and ways to change it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chase.recipe import Recipe

BLOCKS: dict[str, Any] = {
    "model": {"name": "vgg8", "width": 0.125},
    "data": {"name": "synthetic", "shape": [1, 8, 8], "train": 96, "test": 32, "batch_size": 16, "validation": 0.25},
    "method": {"name": "chase", "sparsity": 0.6, "channel_sparsity": 0.5, "stop": 0.5, "round_to": 4},
    "training": {"epochs": 4, "seed": 3},
}


def recipe(blocks: Mapping[str, Any] = BLOCKS, **changes: Mapping[str, Any]) -> Recipe:
    """The recipe of some blocks, with some of their settings changed."""
    return Recipe.from_dict({name: {**blocks.get(name, {}), **changes.get(name, {})} for name in {*blocks, *changes}})
