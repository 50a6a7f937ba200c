"""How fast a run goes."""

from __future__ import annotations

from chase.pace import Pace


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def epoch(pace: Pace, clock: Clock, *, first: int, wait: float, step: float, rest: float) -> None:
    """30 steps of `step` seconds, the first after another `wait`, and `rest` seconds of evaluation."""
    clock.now += wait
    for done in range(first, first + 30):
        clock.now += step
        pace.step(done, 90)
    clock.now += rest


def test_seconds_left_are_at_the_pace_of_the_last_epoch_evaluation_included() -> None:
    clock = Clock()
    pace = Pace(clock)

    epoch(pace, clock, first=1, wait=50, step=2, rest=29)
    first = pace.epoch(1)
    epoch(pace, clock, first=31, wait=5, step=1, rest=10)
    second = pace.epoch(2)

    assert first.seconds_left == 60 * (29 * 2 + 29) / 29  # from the end of the first step on
    assert second.seconds_left == 30 * (5 + 30 + 10) / 30


def test_the_speedup_compares_steps_alone_with_those_of_the_first_epoch_observed() -> None:
    clock = Clock()
    pace = Pace(clock)

    epoch(pace, clock, first=31, wait=50, step=2, rest=29)
    first = pace.epoch(2)
    epoch(pace, clock, first=61, wait=5, step=0.5, rest=10)
    second = pace.epoch(3)

    assert (first.speedup, first.since) == (1.0, 2)
    assert (second.speedup, second.since) == (4.0, 2)
    assert second.seconds_left == 0


def test_what_too_few_steps_would_tell_is_not_told() -> None:
    clock = Clock()
    pace = Pace(clock)

    pace.step(1, 2)
    clock.now += 3
    first = pace.epoch(1)
    pace.step(2, 2)
    second = pace.epoch(2)

    assert (first.seconds_left, first.speedup) == (None, None)
    assert (second.seconds_left, second.speedup) == (0, None)
