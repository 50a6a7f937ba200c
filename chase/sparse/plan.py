"""Plan: every event of a training, listed before it starts (paper Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

from chase import schedules
from chase.sparse.method import DECAYS, Method

LATE_FLOOR = 0.005
MOST_EVENTS = 50


@dataclass(frozen=True)
class Event:
    """What happens after optimizer step `step` (the first is 1), in this order.

    Channels are removed until `channel_sparsity` is reached, or until only `executed_macs` of the dense model's MACs
    are executed (None: none are); weights are pruned down to density `keep` and grown up to density `density`, both of
    the dense model (None: weights stay).
    """

    step: int
    channel_sparsity: float | None = None
    keep: float | None = None
    density: float | None = None
    executed_macs: float | None = None

    @property
    def removes_channels(self) -> bool:
        """Whether channels may leave."""
        return self.channel_sparsity is not None or self.executed_macs is not None


def stop_step(method: Method, steps: int) -> int:
    """τ_stop in steps."""
    return max(1, round(method.stop * steps))


def plan(method: Method, steps: int) -> tuple[Event, ...]:
    """Every event of a run of `steps` optimizer steps, in order (paper Algorithm 1).

    The last channel event and the return to the exact budget fall on τ_stop, whatever the frequencies.
    """
    stop = stop_step(method, steps)
    channels = _channel_progress(method, stop, steps)
    weights = _weight_events(method, stop, steps)
    if channels and method.masks_weights:
        weights.setdefault(stop, (method.density, method.density))
    return tuple(
        _event(method, step, channels.get(step), *weights.get(step, (None, None)))
        for step in sorted(channels.keys() | weights.keys())
    )


def _event(method: Method, step: int, progress: float | None, keep: float | None, density: float | None) -> Event:
    if progress is None:
        return Event(step, None, keep, density)
    if method.executed_macs is not None:
        macs = schedules.cubic(progress, initial=1.0, final=method.executed_macs)
        return Event(step, None, keep, density, executed_macs=macs)
    return Event(step, schedules.cubic(progress, final=method.channel_sparsity), keep, density)


def _channel_progress(method: Method, stop: int, steps: int) -> dict[int, float]:
    """Step → progress from t_0 to τ_stop (Eq. 3 with S_i = 0 and nΔT = τ_stop − t_0), for every channel event."""
    if not method.prunes_channels:
        return {}
    start = min(round(method.channel_start * steps), stop)
    span = stop - start
    every = _interval(method.channel_every, span)
    at = [*range(start + every - method.channel_offset % every, stop, every), stop]
    return {step: (step - start) / span if span else 1.0 for step in at}


def _weight_events(method: Method, stop: int, steps: int) -> dict[int, tuple[float, float]]:
    """Step → (density after pruning, density after growing)."""
    if method.update_every == 0 or not method.masks_weights:
        return {}
    every = _interval(method.update_every, stop)
    events = {step: _exploration(method, step / stop) for step in range(every, stop, every)}
    events[stop] = (method.density, method.density)
    if method.explore_after_stop:
        for step in range(stop + every - stop % every, steps, every):
            drop = LATE_FLOOR + (method.late_drop - LATE_FLOOR) * schedules.cosine(step / steps)
            events[step] = (method.density * (1 - drop), method.density)
    return events


def _interval(every: int | None, span: int) -> int:
    """Steps between events; by default 50 of them."""
    return every or max(1, span // MOST_EVENTS)


def _exploration(method: Method, progress: float) -> tuple[float, float]:
    """One event before τ_stop: prune to the budget and grow beyond it, or drop below it and grow back."""
    budget = schedules.cubic(progress, initial=method.initial_density, final=method.density)
    decay = DECAYS[method.decay](progress)
    if method.soft_bound > 0:
        return budget, min(1.0, budget + method.soft_bound * decay)
    return budget * (1 - method.drop_fraction * decay), budget
