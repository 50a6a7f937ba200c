"""When a training is compacted: at the channel events after which the smaller network saves more than it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from chase.counting import Cost, macs_at_widths
from chase.errors import RecipeError
from chase.settings import TrainingSettings
from chase.slimming.groups import Group
from chase.slimming.widths import filled, grid_of, spread
from chase.sparse.masks import Masks
from chase.sparse.method import Method
from chase.sparse.plan import Event, plan

GRID = 8
"""The widths that a compacted training has are multiples of it: kernels of GPUs ask for that, and it is exact."""
PRICE, PRICE_COMPILED = 50, 5000
"""Dense training steps that one compaction is taken to cost: cutting weights and optimizer state takes less than one on
a CPU, but allocators and kernel choices start anew on a GPU; `torch.compile` compiles for a minute or more."""
CANDIDATES = 64


def compactions(
    settings: TrainingSettings,
    method: Method,
    steps: int,
    *,
    model: nn.Module,
    groups: tuple[Group, ...],
    cost: Cost,
) -> tuple[int, ...]:
    """The optimizer steps after which dead channels are cut out of a training of `steps` steps.

    They follow from the recipe alone, so that a resumed run and all processes of a run decide alike.

    Raises:
        RecipeError: for a mark that the method's channel sparsity does not reach.
    """
    events = tuple(event for event in plan(method, steps) if event.removes_channels)
    if method.channel_regrowth:  # what may return must not be cut out
        events = events[-1:]
    if settings.compact == "off" or not events:
        return ()
    if not isinstance(settings.compact, str):
        return tuple(sorted({_reaching(mark, events) for mark in settings.compact}))
    events = _thinned(events)
    macs = macs_if_even(model, groups, cost, method, [1 - (event.channel_sparsity or 0.0) for event in events])
    shares = [event.executed_macs or count / cost.macs for event, count in zip(events, macs, strict=True)]
    price = PRICE if settings.compile == "off" else PRICE_COMPILED
    return cheapest([event.step for event in events], shares, steps=steps, price=price)


def _reaching(mark: float, events: Sequence[Event]) -> int:
    """The step of the first event that has the channel sparsity of a mark."""
    for event in events:
        if (event.channel_sparsity or 0.0) >= mark - 1e-9:
            return event.step
    raise RecipeError(
        f"training.compact: no event reaches the mark {mark}; the last has method.channel_sparsity "
        f"{events[-1].channel_sparsity}"
    )


def _thinned(events: Sequence[Event]) -> tuple[Event, ...]:
    """At most so many events, evenly spread over their number, the last among them."""
    count = min(len(events), CANDIDATES)
    return tuple(events[(index + 1) * len(events) // count - 1] for index in range(count))


def cheapest(at: Sequence[int], shares: Sequence[float], *, steps: int, price: float) -> tuple[int, ...]:
    """Which of the steps `at` to compact after, so that training costs least.

    A step costs 1 before the first compaction and `shares[i]` after that at `at[i]`; each compaction costs `price`.
    """
    times, costs = [0, *at], [1.0, *shares]
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]  # the cost up to a compaction there, and those before
    for number, time in enumerate(at, start=1):
        best.append(
            min(
                (best[last][0] + costs[last] * (time - times[last]) + price, (*best[last][1], time))
                for last in range(number)
            )
        )
    totals = [(best[last][0] + costs[last] * (steps - times[last]), best[last][1]) for last in range(len(times))]
    return min(totals)[1]


def macs_if_even(
    model: nn.Module, groups: tuple[Group, ...], cost: Cost, method: Method, shares: Sequence[float]
) -> list[int]:
    """MACs per image when each of these shares of every group's channels lives, on the method's width grid."""
    masks = Masks.dense(model, groups)
    found = []
    for share in shares:
        masks.alive = evenly(groups, method, {group.name: round(group.size * share) for group in groups})
        found.append(macs_at_widths(cost, masks.shapes()))
    return found


def evenly(groups: tuple[Group, ...], method: Method, widths: Mapping[str, int]) -> dict[str, Tensor]:
    """So many living channels of each group, or as many more as its width grid asks for, evenly spread: bool [size]."""
    return {
        group.name: filled(group, spread(group, widths[group.name]), grid=grid_of(method.round_to, group))
        for group in groups
    }
