"""When a training is compacted."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from small_training import ResidualNet, seeded

from chase.compaction import cheapest, compactions, macs_if_even
from chase.counting import cost
from chase.errors import RecipeError
from chase.settings import TrainingSettings
from chase.slimming import channel_groups
from chase.slimming.groups import Group
from chase.sparse import Chase, Method
from chase.sparse.start import candidates

EXAMPLE = torch.zeros(1, 3, 6, 6)
METHOD = Chase(channel_sparsity=0.5, channel_every=10, stop=0.8, round_to=1)


def total(chosen: tuple[int, ...], shares: dict[int, float], *, steps: int, price: float) -> float:
    """What a training costs that is compacted after these steps."""
    now, found, at = 1.0, price * len(chosen), 0
    for step in (*chosen, steps):
        found += now * (step - at)
        now, at = shares.get(step, now), step
    return found


@pytest.mark.parametrize("price", [0.0, 1.0, 5.0, 20.0, 1000.0])
def test_the_cheapest_compactions_are_those_of_an_exhaustive_search(price: float) -> None:
    shares = {10: 0.8, 20: 0.66, 30: 0.55, 45: 0.41, 60: 0.4, 80: 0.38}
    every = [each for size in range(len(shares) + 1) for each in combinations(shares, size)]

    found = cheapest([*shares], [*shares.values()], steps=100, price=price)

    assert total(found, shares, steps=100, price=price) == pytest.approx(
        min(total(each, shares, steps=100, price=price) for each in every)
    )
    assert (found == ()) == (price == 1000.0)


def planned(method: Method = METHOD, steps: int = 1000, **settings: object) -> tuple[int, ...]:
    net = seeded(ResidualNet)
    groups = candidates(channel_groups(net, EXAMPLE, freedoms=method.freedoms), method)
    training = TrainingSettings(**settings)  # type: ignore[arg-type]
    return compactions(training, method, steps, model=net, groups=groups, cost=cost(net, EXAMPLE))


def test_marks_are_met_by_the_first_event_that_reaches_them() -> None:
    # S(t) = ½ (1 − (1 − t/800)³), events every 10 steps: .3 is passed at t = 210.56, .5 is reached at the end alone
    assert planned(compact=(0.3, 0.5)) == (220, 800)


def test_channels_that_may_return_stay_until_they_cannot() -> None:
    assert planned(METHOD.with_(channel_regrowth=0.3), steps=100_000) == (80_000,)


def test_targets_in_macs_say_what_a_step_costs() -> None:
    method = METHOD.with_(channel_sparsity=0.0, executed_macs=0.6)

    assert len(planned(method, steps=100_000)) > 3
    with pytest.raises(RecipeError, match=r"no event reaches the mark 0.3; the last has method.channel_sparsity None"):
        planned(method, compact=(0.3,))


def test_a_mark_that_is_never_reached_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"no event reaches the mark 0.6; the last has method.channel_sparsity 0.5"):
        planned(compact=(0.6,))


def test_a_long_training_is_compacted_more_often_than_a_short_or_a_compiled_one() -> None:
    long, short = planned(steps=100_000), planned(steps=1000)

    assert len(long) > len(short) > 0
    assert long[-1] <= 80_000
    assert planned(steps=20) == planned(compile="default") == planned(compact="off") == ()
    assert planned(METHOD.with_(channel_sparsity=0.0)) == ()


def test_macs_fall_with_the_channels_that_leave() -> None:
    net = seeded(ResidualNet)
    groups: tuple[Group, ...] = candidates(channel_groups(net, EXAMPLE), METHOD)
    spent = cost(net, EXAMPLE)

    dense, half = macs_if_even(net, groups, spent, METHOD, [1.0, 0.5])

    assert dense == spent.macs
    # conv1 and its reader conv2 lose half of 8·8·9·36, the wide convolution half of 8·16·9·4, the classifier half of 80
    assert dense - half == 8 * 8 * 9 * 36 + 8 * 16 * 9 * 4 // 2 + 40
