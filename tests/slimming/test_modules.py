"""Rules for whole modules, declared by class or by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hazards import VECTOR, Toy, assert_exact, example_of, reasons
from torch import Tensor, nn

from chase.slimming import FOLLOWERS, MODULE_RULES, ModuleCall
from chase.slimming.modules import ModuleRule, calls, declared, full_name
from chase.slimming.operators import Flow
from chase.slimming.units import UNKNOWN, Axis, Labels
from chase.tracing import trace

EXAMPLE = example_of(VECTOR)


class Gate(nn.Module):
    """x · sign(w · x), where the sign is computed by an operator that has no rule; 0 stays 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sgn(torch.digamma(x * self.weight + 3))


class ChildOfGate(Gate):
    """Another class; a rule says nothing about it."""


def gate(flow: Flow, call: ModuleCall) -> Labels | None:
    """Each unit keeps to itself, and has one entry of the weight."""
    source = flow.labels(call.inputs[0])
    if source is None:
        return None
    axis = len(source.shape) - 1
    flow.ledger.tie(flow.ledger.units_of(f"{call.name}.weight", 0, source.shape[axis]), source.axes[axis].ids)
    return source


def owning_nothing(flow: Flow, call: ModuleCall) -> Labels | None:
    """As `gate`, without a word on the weight."""
    return flow.labels(call.inputs[0])


def gated(*, again: bool = False, kind: type[Gate] = Gate) -> Toy:
    """A gate between two linear layers, in one call or two."""

    def forward(net: Any, x: Tensor) -> Any:
        x = net.gate(net.first(x))
        return net.last(net.gate(x * 2) if again else x)

    return Toy(forward, first=nn.Linear(4, 8), gate=kind(8), last=nn.Linear(8, 2))


SHAPES: dict[str, tuple[int, ...]] = {"first.weight": (4, 4), "gate.weight": (4,), "last.weight": (2, 4)}


def test_without_a_rule_the_channels_stay_and_the_reason_names_the_operator() -> None:
    assert reasons(gated(), EXAMPLE)["first"] == "reaches aten.digamma, which has no rule"


@pytest.mark.parametrize("key", [Gate, f"{Gate.__module__}.Gate"], ids=["class", "name"])
@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_a_rule_by_class_or_by_name_lets_them_leave(
    key: type | str, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODULE_RULES, key, gate)

    assert_exact(gated(again=again), EXAMPLE, {"first": 8}, SHAPES)


def test_a_rule_does_not_count_for_other_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODULE_RULES, Gate, gate)

    assert reasons(gated(kind=ChildOfGate), EXAMPLE)["first"] == "reaches aten.digamma, which has no rule"


def test_tensors_that_the_rule_does_not_own_hold_what_they_are_tied_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODULE_RULES, Gate, owning_nothing)
    model = gated()
    model.other = nn.Linear(8, 2)
    model.function = lambda net, x: net.last(net.gate(net.first(x))) + net.other(net.first(x) * net.gate.weight)

    assert reasons(model, EXAMPLE)["first"] == "owns part of gate.weight, which gate uses"


def test_a_tensor_that_nobody_ties_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule claims units whose weight it does not own: the trial shows that the module does not follow."""
    monkeypatch.setitem(MODULE_RULES, Gate, owning_nothing)

    assert (reasons(gated(), EXAMPLE)["first"] or "").startswith("the forward pass fixes their number: ")


def test_a_rule_that_returns_nothing_leaves_the_readers_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def holding(flow: Flow, call: ModuleCall) -> None:
        flow.ledger.pin(flow.labels(call.inputs[0]), f"is read by {call.name}")

    monkeypatch.setitem(MODULE_RULES, Gate, holding)

    assert reasons(gated(), EXAMPLE)["first"] == "is read by gate"


def test_a_module_that_changes_what_dead_units_are_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(flow: Flow, call: ModuleCall) -> Labels | None:
        labels = gate(flow, call)
        return labels and labels.mapped(lambda value: UNKNOWN)

    monkeypatch.setitem(MODULE_RULES, Gate, unknown)

    assert reasons(gated(), EXAMPLE)["first"] == "arrives as something other than zero at last"


def rule(flow: Flow, call: ModuleCall) -> None:
    return None


def test_calls_are_found_in_order_with_what_goes_in_and_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = trace(gated(again=True), EXAMPLE)
    assert calls(traced) == {}

    monkeypatch.setitem(MODULE_RULES, Gate, rule)
    found = calls(traced)

    each: list[tuple[ModuleCall, ModuleRule]] = list({id(call): (call, own) for call, own in found.values()}.values())
    assert [call.name for call, _ in each] == ["gate", "gate"]
    assert all(own is rule for _, own in each)
    assert [len(call.inputs) for call, _ in each] == [1, 1]
    first, second = (call for call, _ in each)
    assert first.output in second.inputs[0].all_input_nodes  # the product with 2 lies between them
    assert set(found) == first.nodes | second.nodes
    assert not first.nodes & second.nodes


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Gate(8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x) + 0
        return y


def test_the_rule_of_the_outermost_module_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Toy(
        lambda net, x: net.last(net.outer(net.first(x))), first=nn.Linear(4, 8), outer=Outer(), last=nn.Linear(8, 2)
    )
    monkeypatch.setitem(MODULE_RULES, Gate, gate)
    monkeypatch.setitem(MODULE_RULES, Outer, rule)

    nodes = [node for node in trace(model, EXAMPLE).nodes if node.op == "call_function"]

    rules = {full_name(kind): each for kind, each in MODULE_RULES.items()}
    assert {declared(node, rules) for node in nodes} == {None, ("outer", rule)}
    assert full_name(Outer) == f"{Outer.__module__}.Outer"


class Hidden(nn.Module):
    """Two blocks of a width that no tensor shows."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.wide, self.out, self.width = nn.Linear(4, 2 * width), nn.Linear(width, 2), width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.wide(x).relu().view(-1, 2, self.width).sum(1))
        return y


def test_a_hidden_number_that_is_declared_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    def width(module: Any) -> dict[str, Any]:
        return {"width": module.out.weight.shape[1]}

    assert reasons(Hidden(), EXAMPLE)["wide"] == "is split by view into sizes that do not follow its width"

    monkeypatch.setitem(FOLLOWERS, Hidden, width)
    result = assert_exact(Hidden(), EXAMPLE, {"wide": 4}, {"wide.weight": (4, 4), "out.weight": (2, 2)})

    assert result.plan.attributes[""] == {"width": 2}


def test_labels_of_a_module_may_be_new_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear layer in disguise: its rows make units of their own."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(6, 8))

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("bi,oi->bo", x, self.weight)

    def mixed(flow: Flow, call: ModuleCall) -> Labels:
        source = flow.labels(call.inputs[0])
        assert source is not None
        flow.ledger.tie(flow.ledger.units_of(f"{call.name}.weight", 1, 8), source.axes[1].ids)
        return Labels((2, 6), {1: Axis(flow.ledger.produce(f"{call.name}.weight", 0, 6))})

    monkeypatch.setitem(MODULE_RULES, Mixed, mixed)
    model = Toy(
        lambda net, x: net.last(net.mixed(net.first(x))), first=nn.Linear(4, 8), mixed=Mixed(), last=nn.Linear(6, 2)
    )

    shapes: dict[str, tuple[int, ...]] = {"mixed.weight": (3, 4), "last.weight": (2, 3)}
    assert_exact(model, EXAMPLE, {"first": 8, "mixed": 6}, shapes)
