"""How many weights each layer starts with: a global density spread over layers (paper Appendix B: ERK).

A distribution maps `(shapes, density)` to one density in [0, 1] per layer, such that the weighted mean is `density`
and no layer exceeds its capacity. `counts` turns densities into whole numbers that add up exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from chase.registry import Registry

Shapes = Mapping[str, Sequence[int]]
Distribution = Callable[[Shapes, float], dict[str, float]]


def uniform(shapes: Shapes, density: float) -> dict[str, float]:
    """The same density in every layer."""
    return dict.fromkeys(shapes, density)


def er(shapes: Shapes, density: float) -> dict[str, float]:
    """Erdős–Rényi: density ∝ (out + in) / (out · in), after SET (Mocanu et al. 2018)."""
    return _in_proportion(shapes, density, {name: sum(s[:2]) / math.prod(s[:2]) for name, s in shapes.items()})


def erk(shapes: Shapes, density: float) -> dict[str, float]:
    """Erdős–Rényi with kernel sides: density ∝ (out + in + kh + kw) / (out · in · kh · kw), after RigL."""
    return _in_proportion(shapes, density, {name: sum(s) / math.prod(s) for name, s in shapes.items()})


def _in_proportion(shapes: Shapes, density: float, raw: Mapping[str, float]) -> dict[str, float]:
    """Densities min(1, ε · raw), with ε solved anew each time that the layers of the largest raw fill up."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    full: set[str] = set()
    while True:
        free = [name for name in shapes if name not in full]
        budget = density * sum(sizes.values()) - sum(sizes[name] for name in full)
        epsilon = budget / sum(raw[name] * sizes[name] for name in free) if free else 0.0
        highest = max((raw[name] for name in free), default=0.0)
        if epsilon * highest <= 1:
            return {name: 1.0 if name in full else epsilon * raw[name] for name in shapes}
        full.update(name for name in free if raw[name] == highest)


DISTRIBUTIONS: Registry[Distribution] = Registry("distribution", {"erk": erk, "er": er, "uniform": uniform})


def apportion(total: int, shares: Mapping[str, float], limits: Mapping[str, int]) -> dict[str, int]:
    """`total` split in proportion to `shares` into whole numbers, none above its limit (largest remainders).

    The parts add up to min(total, Σ limits) exactly; equal remainders go to the earlier name.

    >>> apportion(5, {"a": 1.0, "b": 1.0, "c": 8.0}, {"a": 9, "b": 9, "c": 3})
    {'a': 1, 'b': 1, 'c': 3}
    """
    left = min(total, sum(limits[name] for name in shares))
    free, parts = dict(shares), dict.fromkeys(shares, 0)
    while True:
        exact = _in_parts(left, free)
        full = [name for name in free if exact[name] >= limits[name]]
        if not full:
            break
        for name in full:
            parts[name] = limits[name]
            left -= limits[name]
            del free[name]
    parts.update({name: math.floor(part) for name, part in exact.items()})
    rest = left - sum(parts[name] for name in free)
    for name in sorted(free, key=lambda name: parts[name] - exact[name])[:rest]:
        parts[name] += 1
    return parts


def _in_parts(total: int, shares: Mapping[str, float]) -> dict[str, float]:
    weight = sum(shares.values())
    return {name: total * share / weight if weight else total / len(shares) for name, share in shares.items()}


def counts(shapes: Shapes, density: float, distribution: Distribution) -> dict[str, int]:
    """The number of weights of each layer: they add up to round(density · total), each within its layer."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    densities = distribution(shapes, density)
    shares = {name: densities[name] * sizes[name] for name in shapes}
    return apportion(round(density * sum(sizes.values())), shares, sizes)
