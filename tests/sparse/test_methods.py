"""Methods as settings, and the events that they plan."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chase.errors import RecipeError, UnknownName
from chase.sparse import METHODS, SET, Chase, Event, Method, RigL, make, plan
from chase.sparse.methods import ABOUT
from chase.sparse.plan import stop_step

EPOCH = 500  # steps; CIFAR at batch 100
PAPER = {"update_every": 1000, "channel_offset": 500, "stop": 0.8125, "round_to": 1}


HALF: dict[str, Any] = {"channel_sparsity": 0.5, "executed_macs": None}


def channel_targets(method: Method, steps: int) -> dict[int, float]:
    return {event.step: event.channel_sparsity for event in plan(method, steps) if event.channel_sparsity is not None}


@pytest.mark.parametrize(
    ("epoch_steps", "every", "number", "first", "last"),
    [
        (500, 1000, 65, {500: 0.01145, 1500: 0.03382, 2500: 0.05550}, {64500: 0.4999998}),
        (500, 8000, 8, {7500: 0.15387, 15500: 0.27918, 23500: 0.36987}, {63500: 0.499994}),
        (391, 8000, 6, {7500: 0.19028, 15500: 0.33210, 23500: 0.42228}, {47500: 0.499859}),
    ],
)
def test_channel_events_are_the_reference_and_one_more_at_the_end(
    epoch_steps: int, every: int, number: int, first: dict[int, float], last: dict[int, float]
) -> None:
    method = Chase(channel_sparsity=0.5, channel_every=every, **PAPER)

    found = channel_targets(method, 160 * epoch_steps)

    *before, end = found
    assert len(before) == number
    assert end == 130 * epoch_steps
    assert found[end] == 0.5
    assert {step: round(found[step], 5) for step in before[:3]} == first
    assert found[before[-1]] == pytest.approx(last[before[-1]], abs=5e-7)


@pytest.mark.parametrize(
    ("every", "number", "first"),
    [
        (5004, 40, {9508: 0.05434, 14512: 0.08085}),
        (1000, 200, {500: 0.00299, 1500: 0.00893, 2500: 0.01480}),
    ],
)
def test_channel_events_of_the_imagenet_run(every: int, number: int, first: dict[int, float]) -> None:
    method = Chase(channel_sparsity=0.4, channel_every=every, **{**PAPER, "stop": 0.8})

    found = channel_targets(method, 100 * 2502)

    assert list(found)[-1] == 200160
    assert len(found) == number + 1
    assert {step: found[step] for step in first} == pytest.approx(first, abs=2e-5)  # the reference is one step late


def test_without_an_offset_channels_leave_just_before_weights_move() -> None:
    method = Chase(channel_sparsity=0.5, channel_every=4, update_every=2, stop=1.0)

    assert [(e.step, e.channel_sparsity is not None, e.density is not None) for e in plan(method, 9)] == [
        (2, False, True),
        (4, True, True),
        (6, False, True),
        (8, True, True),
        (9, True, True),
    ]


def test_the_soft_memory_bound_decays_to_the_budget_as_published() -> None:
    method = Chase(sparsity=0.9, **{**PAPER, "update_every": 500})

    events = {event.step: event for event in plan(method, 160 * EPOCH)}

    table = {10: 0.1493, 40: 0.1392, 65: 0.125, 100: 0.1063, 130: 0.1}
    assert list(events) == list(range(500, 65001, 500))
    assert all(event.keep == pytest.approx(0.1) for event in events.values())
    for epoch, density in table.items():
        assert events[epoch * EPOCH].density == pytest.approx(density, abs=5e-5)
    assert events[65000].density == events[65000].keep


def test_the_soft_memory_bound_is_constant_if_asked_and_never_above_one() -> None:
    events = plan(Chase(sparsity=0.02, decay="constant", update_every=10), 100)

    assert [(event.step, event.density) for event in events] == [*((s, 1.0) for s in range(10, 80, 10)), (80, 0.98)]
    assert {event.keep for event in events} == {0.98}


def test_rigl_drops_along_a_cosine_and_grows_back_to_the_budget() -> None:
    events = plan(RigL(sparsity=0.8, update_every=25), 400)

    assert [event.step for event in events] == list(range(25, 301, 25))
    assert all(event.density == pytest.approx(0.2) for event in events)
    assert events[3].keep == pytest.approx(0.2 * (1 - 0.3 * 0.75))  # step 100 of 300: cosine at 1/3
    assert events[5].keep == pytest.approx(0.2 * (1 - 0.3 * 0.5))
    assert events[-1].keep == events[-1].density


def test_exploration_after_the_stop_drops_and_regrows_until_the_end() -> None:
    method = Chase(update_every=200, stop=0.5, explore_after_stop=True, late_drop=0.5)

    events = {event.step: event for event in plan(method, 1000)}

    assert list(events) == [200, 400, 500, 600, 800]
    assert events[500] == Event(500, None, method.density, method.density)
    assert events[600].keep == pytest.approx(0.1 * (1 - 0.005 - 0.495 * 0.3454915))
    assert events[800].keep == pytest.approx(0.1 * (1 - 0.005 - 0.495 * 0.0954915))
    assert events[600].density == events[800].density == method.density
    assert [event.step for event in plan(method.with_(explore_after_stop=False), 1000)] == [200, 400, 500]


def test_dense_and_static_have_no_events() -> None:
    assert plan(make("dense"), 1000) == ()
    assert plan(make("static"), 1000) == ()


def test_a_static_method_that_loses_channels_gets_its_weights_back_at_the_stop() -> None:
    events = plan(make("static", sparsity=0.8, channel_sparsity=0.5, channel_every=30), 100)

    assert [(event.step, event.density is None) for event in events] == [(30, True), (60, True), (80, False)]
    assert events[-1] == Event(80, 0.5, 1 - 0.8, 1 - 0.8)


def test_by_default_there_are_fifty_events() -> None:
    events = plan(Chase(channel_sparsity=0.3), 5000)

    assert [event.step for event in events] == list(range(80, 4001, 80))
    assert all(event.channel_sparsity is not None and event.density is not None for event in events)


methods = st.builds(
    Method,
    sparsity=st.sampled_from([0.0, 0.5, 0.9]),
    channel_sparsity=st.sampled_from([0.0, 0.5]),
    soft_bound=st.sampled_from([0.0, 0.05, 0.6]),
    update_every=st.sampled_from([None, 0, 1, 7]),
    channel_every=st.sampled_from([None, 1, 5]),
    channel_offset=st.integers(0, 12),
    stop=st.floats(0.01, 1),
    explore_after_stop=st.booleans(),
)


@settings(deadline=None, max_examples=100)
@given(methods, st.integers(1, 300))
def test_every_plan_ends_on_target(method: Method, steps: int) -> None:
    events = plan(method, steps)

    numbers = [event.step for event in events]
    assert numbers == sorted(set(numbers))
    assert all(1 <= step <= steps for step in numbers)
    at_stop = [event for event in events if event.step == stop_step(method, steps)]
    if events:
        budget = method.density if method.masks_weights else None
        assert at_stop[0].density == at_stop[0].keep == budget or method.update_every == 0
        assert at_stop[0].channel_sparsity == (method.channel_sparsity or None)
        assert events[-1].density in (None, method.density)
    channels = [event.channel_sparsity for event in events if event.channel_sparsity is not None]
    assert channels == sorted(channels)
    moves = [(event.keep, event.density) for event in events]
    assert all(
        (keep is None and density is None) or (keep is not None and density is not None and 0 <= keep <= density <= 1)
        for keep, density in moves
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sparsity": 1.0}, "method.sparsity must lie in [0, 1), not 1.0"),
        ({"sparsity": float("nan")}, "method.sparsity must be a finite number, not nan"),
        ({"channel_sparsity": -0.1}, "method.channel_sparsity must lie in [0, 1), not -0.1"),
        ({"soft_bound": 1.5}, "method.soft_bound must lie in [0, 1], not 1.5"),
        ({"drop_fraction": -1}, "method.drop_fraction must lie in [0, 1], not -1"),
        ({"late_drop": 2}, "method.late_drop must lie in [0, 1], not 2"),
        ({"min_channel_ratio": 1.1}, "method.min_channel_ratio must lie in [0, 1], not 1.1"),
        ({"stop": 0}, "method.stop must lie in (0, 1], not 0"),
        ({"update_every": -1}, "method.update_every must lie in [0, ∞), not -1"),
        ({"channel_every": 0}, "method.channel_every must lie in [1, ∞), not 0"),
        ({"channel_offset": -5}, "method.channel_offset must lie in [0, ∞), not -5"),
        ({"round_to": 0}, "round_to must be a whole number of at least 1, not 0"),
        ({"round_to": {"layer1.*": 8, "fc": 2.5}}, "round_to for 'fc' must be a whole number of at least 1, not 2.5"),
        ({"aggregate": "men"}, "no aggregate named 'men'; did you mean 'mean'?"),
        ({"scope": "local"}, "method.scope must lie in {global, layer}, not local"),
        ({"distribution": "erkk"}, "no distribution named 'erkk'; did you mean 'erk'?"),
        ({"criterion": "um"}, "no channel score named 'um'; did you mean 'umm'?"),
        ({"grow": "xyz"}, "no score named 'xyz'; known: gradient, magnitude, magnitude+gradient, random"),
        ({"prune": "magnitud"}, "no score named 'magnitud'; did you mean 'magnitude'?"),
        ({"decay": "lineal"}, "no decay named 'lineal'; did you mean 'linear'?"),
        ({"allocation": "everywhere"}, "no allocation named 'everywhere'; known: global, layer, momentum, survivors"),
        ({"normalise": "layers"}, "no normalisation named 'layers'; did you mean 'layer'?"),
        ({"initial": "snap"}, "no initial named 'snap'; did you mean 'snip'?"),
        ({"channel_scope": "local"}, "method.channel_scope must lie in {global, layer}, not local"),
        ({"initial_sparsity": 1.0}, "method.initial_sparsity must lie in [0, 1), not 1.0"),
        ({"executed_macs": 0.0}, "method.executed_macs must lie in (0, 1], not 0.0"),
        ({"channel_start": 0.9}, "method.channel_start must lie in [0, stop = 0.8], not 0.9"),
        ({"channel_regrowth": 1.0}, "method.channel_regrowth must lie in [0, 1), not 1.0"),
        ({"gradient_momentum": 1.0}, "method.gradient_momentum must lie in [0, 1), not 1.0"),
        ({"rewire_l1": -1.0}, "method.rewire_l1 must lie in [0, ∞), not -1.0"),
        (
            {"channel_sparsity": 0.5, "executed_macs": 0.5},
            "method.channel_sparsity and method.executed_macs name two targets; leave one out",
        ),
        (
            {"allocation": "momentum"},
            "method.allocation momentum needs method.gradient_momentum above 0, such as 0.9",
        ),
        (
            {"initial_sparsity": 0.5, "update_every": 0},
            "method.initial_sparsity changes at parameter events; method.update_every must not be 0",
        ),
        ({"sparsty": 0.5}, "method.sparsty: no such setting; did you mean 'sparsity'?"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make("chase", **values)

    assert str(caught.value) == message


def test_channels_leave_at_once_where_the_start_is_the_stop() -> None:
    method = make("prune-finetune", **HALF, channel_start=0.5, stop=0.5)

    assert plan(method, 200) == (Event(100, 0.5),)


def test_channels_leave_between_start_and_stop_along_eq_3() -> None:
    method = make("prune-finetune", **HALF, channel_start=0.5, stop=0.75, channel_every=10)

    found = channel_targets(method, 200)

    assert list(found) == [110, 120, 130, 140, 150]
    assert found[110] == pytest.approx(0.5 * (1 - 0.8**3))
    assert found[150] == 0.5


def test_a_target_in_macs_falls_from_all_of_them() -> None:
    events = plan(Chase(sparsity=0.0, executed_macs=0.4, channel_every=25, stop=1.0), 100)

    assert [event.step for event in events] == [25, 50, 75, 100]
    assert [event.executed_macs for event in events] == pytest.approx(
        [1 - 0.6 * (1 - x**3) for x in (0.75, 0.5, 0.25, 0)]
    )
    assert all(event.channel_sparsity is None and event.removes_channels for event in events)


def test_an_initial_sparsity_leads_to_the_final_one() -> None:
    granet = plan(make("granet", sparsity=0.9, update_every=25), 400)

    assert [event.step for event in granet] == list(range(25, 301, 25))
    budget = 0.1 + 0.4 * (1 - 4 / 12) ** 3
    assert granet[3].density == pytest.approx(budget)
    assert granet[3].keep == pytest.approx(budget * (1 - 0.5 * 0.75))  # drops half along a cosine, at a third
    assert granet[-1].keep == granet[-1].density == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("decay", "expected"), [("linear", [0.75, 0.5, 0.25]), ("steps", [1.0, 0.5, 0.25]), ("constant", [1.0, 1.0, 1.0])]
)
def test_what_is_dropped_falls_as_the_decay_says(decay: str, expected: list[float]) -> None:
    events = plan(RigL(sparsity=0.5, drop_fraction=1.0, decay=decay, update_every=25, stop=1.0), 100)

    assert [1 - (event.keep or 0) / 0.5 for event in events[:3]] == pytest.approx(expected)


def test_every_method_says_what_it_is() -> None:
    assert list(ABOUT) == list(METHODS)
    assert all(len(about) > 10 for about in ABOUT.values())


def test_a_wrong_method_name_is_explained() -> None:
    with pytest.raises(UnknownName, match="no method named 'rigel'; did you mean 'rigl'?"):
        make("rigel")


def test_dense_refuses_to_be_sparse() -> None:
    with pytest.raises(RecipeError, match="must be 0 for the method 'dense'"):
        make("dense", sparsity=0.5)


def test_the_names_are_sets_of_defaults() -> None:
    assert Chase() == METHODS["chase"]
    assert RigL(sparsity=0.8) == METHODS["rigl"].with_(sparsity=0.8)
    assert SET().grow == "random"
    assert {name: method.name for name, method in METHODS.items()} == {name: name for name in METHODS}
    assert Chase(sparsity=0.75).density == 0.25
