"""How fast a run goes, and when it will be done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FEWEST = 20  # steps of an epoch, below which their speed is noise
Moment = tuple[int, float]  # the steps done, and the time in seconds


@dataclass(frozen=True)
class Progress:
    """Where a run stands after an epoch; what cannot be told yet is None.

    `seconds_left` is at the pace of that epoch, evaluation and all. `speedup` is how many times faster a step has
    become since epoch `since`, the first that was observed.
    """

    seconds_left: float | None
    speedup: float | None
    since: int


class Pace:
    """A stopwatch that is told of every step and every epoch."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mark: Moment | None = None  # from where the pace is taken: the first step, then the end of each epoch
        self._first: Moment | None = None
        self._last: Moment | None = None
        self._steps = 0
        self._baseline: tuple[int, float | None] | None = None

    def step(self, done: int, steps: int) -> None:
        """`done` of all `steps` are done."""
        now = (done, self._clock())
        self._mark = self._mark or now
        self._first, self._last, self._steps = self._first or now, now, steps

    def epoch(self, number: int) -> Progress:
        """Epoch `number` (the first is 1) is over; it took at least one step."""
        assert self._mark is not None
        assert self._first is not None
        assert self._last is not None
        done, now = self._last[0], self._clock()
        # Without the first step of an epoch: it waits for the first images, and in the beginning for much else.
        per_step = _per_step(self._first, self._last, FEWEST)
        self._baseline = self._baseline or (number, per_step)
        since, before = self._baseline
        pace = _per_step(self._mark, (done, now), 1)
        self._mark, self._first = (done, now), None
        return Progress(
            seconds_left=None if pace is None else pace * (self._steps - done),
            speedup=before / per_step if before and per_step else None,
            since=since,
        )


def _per_step(start: Moment, end: Moment, fewest: int) -> float | None:
    steps = end[0] - start[0]
    return (end[1] - start[1]) / steps if steps >= fewest else None
