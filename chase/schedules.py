"""Functions of progress in [0, 1]: how much of a quantity there is at that point of a run.

They know nothing of steps or epochs; whoever calls them divides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def _clip(progress: float) -> float:
    return min(max(progress, 0.0), 1.0)


def constant(progress: float) -> float:
    """1 all the way."""
    return 1.0


def cosine(progress: float) -> float:
    """From 1 down to 0 along half a cosine."""
    return (1 + math.cos(math.pi * _clip(progress))) / 2


def linear(progress: float) -> float:
    """From 1 down to 0 along a line."""
    return 1 - _clip(progress)


def thirds(progress: float) -> float:
    """1, then a half, then a quarter, for a third of the way each."""
    return 0.5 ** min(2, int(3 * _clip(progress)))


def cubic(progress: float, *, final: float, initial: float = 0.0) -> float:
    """From `initial` to `final`, fast at first (paper Eq. 3; progress = (t − t0) / nΔT).

    >>> cubic(0.5, final=0.5)
    0.4375
    """
    return float(final + (initial - final) * (1 - _clip(progress)) ** 3)


def multistep(epoch: float, *, milestones: Sequence[float], gamma: float) -> float:
    """1, times `gamma` for every milestone (in epochs) that lies behind."""
    return float(gamma ** sum(epoch >= milestone for milestone in milestones))


def warmup(epoch: float, *, epochs: float) -> float:
    """A linear ramp up to 1 over the first `epochs` epochs; 1 throughout where `epochs` is 0."""
    return min(1.0, epoch / epochs) if epochs > 0 else 1.0
