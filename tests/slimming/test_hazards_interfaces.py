"""Hazards: several inputs and outputs, parts that only training runs, numbers hidden in modules, operators and tensors
that nobody knows, types fixed in the forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hazards import IMAGE, VECTOR, Toy, assert_exact, between, example_of, reason, reasons
from torch import Tensor, fx, nn

from chase.slimming import FOLLOWERS, RULES
from chase.slimming.operators import elementwise
from chase.slimming.operators.rule import Flow
from chase.slimming.units import Labels

EXAMPLE = example_of(IMAGE)
OUT = "is an output of the model"
NUMBER = "the forward pass fixes their number: shape '[2, 8, 8, 8]' is invalid for input of size 512"
HALF: dict[str, tuple[int, ...]] = {"first.weight": (4, 3, 1, 1), "last.weight": (2, 4, 1, 1)}


def conv(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 1)


def test_two_inputs_that_meet_in_a_sum_lose_channels_together() -> None:
    model = Toy(
        lambda net, x, y: net.last(net.a(x) + net.b(y)[:, :, None, None]),
        a=conv(3, 8),
        b=nn.Linear(4, 8),
        last=conv(8, 2),
    )

    assert_exact(model, example_of(IMAGE, VECTOR), {"a": 8}, {"a.weight": (4, 3, 1, 1), "b.weight": (4, 4)})


def test_the_outputs_in_a_dictionary_stay_and_what_lies_before_them_leaves() -> None:
    model = Toy(
        lambda net, x: {"logits": net.one(net.a(x)), "more": [net.two(net.a(x)), None, 3]},
        a=conv(3, 8),
        one=conv(8, 2),
        two=conv(8, 4),
    )

    assert reasons(model, EXAMPLE) == {"a": None, "one": OUT, "two": OUT}
    assert_exact(model, EXAMPLE, {"a": 8}, {"one.weight": (2, 4, 1, 1), "two.weight": (4, 4, 1, 1)})


def test_features_that_are_returned_beside_the_logits_stay() -> None:
    model = Toy(lambda net, x: (net.last(net.a(x)), net.a(x).relu()), a=conv(3, 8), last=conv(8, 2))

    assert reasons(model, EXAMPLE) == {"a": OUT, "last": OUT}


def test_what_the_forward_pass_never_touches_stays_as_it_is() -> None:
    model = between(lambda net, x: x, conv(8, 2), spare=conv(8, 9), loose=nn.Parameter(torch.zeros(8)))

    assert_exact(model, EXAMPLE, {"first": 8}, HALF | {"spare.weight": (9, 8, 1, 1), "loose": (8,)})


def in_training(extra: Any) -> Any:
    """An auxiliary head that reads what `extra` makes of the channels, in training only."""

    def forward(net: Any, x: Tensor) -> Any:
        x = net.first(x).relu()
        return (net.last(x), net.out(net.aux(extra(x)))) if net.training else net.last(x)

    return Toy(forward, first=conv(3, 8), aux=conv(8, 6), out=conv(6, 2), last=conv(8, 2))


def test_an_auxiliary_head_slims_along() -> None:
    shapes: dict[str, tuple[int, ...]] = {"aux.weight": (3, 4, 1, 1), "out.weight": (2, 3, 1, 1)}

    assert_exact(in_training(lambda x: x), EXAMPLE, {"first": 8, "aux": 6}, HALF | shapes)


def test_what_only_training_does_to_channels_holds_them_too() -> None:
    model = in_training(lambda x: x - x.mean(1, keepdim=True))

    assert reasons(model, EXAMPLE)["first"] == "is reduced over channels by aten.mean"
    assert_exact(model, EXAMPLE, {"aux": 6}, {"first.weight": (8, 3, 1, 1), "aux.weight": (3, 8, 1, 1)})


def test_a_number_that_only_training_uses_holds() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.first(x)
        y: Tensor = net.last(x.view(len(x), 8, 8, 8) if net.training else x)
        return y

    assert reasons(Toy(forward, first=conv(3, 8), last=conv(8, 2)), EXAMPLE)["first"] == NUMBER


class Fixed(nn.Module):
    """A 1 x 1 convolution that keeps its width as a number."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.weight = width, nn.Parameter(torch.zeros(width, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight).view(x.shape[0], self.width, 8, 8)


def test_a_number_hidden_in_a_module_holds_until_it_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Toy(lambda net, x: net.last(net.first(x)), first=Fixed(8), last=conv(8, 2))
    assert reasons(model, EXAMPLE)["first"] == NUMBER

    monkeypatch.setitem(FOLLOWERS, Fixed, lambda module: {"width": len(module.weight)})

    small: Any = assert_exact(model, EXAMPLE, {"first": 8}, HALF).model
    assert small.first.width == 4


def test_a_class_is_declared_by_name_or_through_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    class Child(Fixed):
        pass

    monkeypatch.setitem(FOLLOWERS, f"{Fixed.__module__}.{Fixed.__qualname__}", lambda m: {"width": len(m.weight)})
    model = Toy(lambda net, x: net.last(net.first(x)), first=Child(8), last=conv(8, 2))

    assert_exact(model, EXAMPLE, {"first": 8}, HALF)


@torch.library.custom_op("hazards::halved", mutates_args=())
def halved(x: Tensor) -> Tensor:
    """An operator that torch does not know."""
    return x / 2


@halved.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


halved.register_autograd(lambda context, gradient: gradient / 2)


@pytest.fixture
def halved_rule() -> Iterator[None]:
    """A rule for the operator, taken out again."""

    def rule(flow: Flow, node: fx.Node) -> Labels | None:
        return elementwise.unary(flow, node)

    RULES["hazards.halved"] = rule
    yield
    del RULES["hazards.halved"]


def test_an_operator_of_the_users_own_holds_until_it_has_a_rule(request: pytest.FixtureRequest) -> None:
    assert reason(lambda net, x: halved(x), conv(8, 2)) == "reaches hazards.halved, which has no rule"

    request.getfixturevalue("halved_rule")

    assert_exact(between(lambda net, x: halved(x), conv(8, 2)), EXAMPLE, {"first": 8}, HALF)


def test_a_channel_buffer_that_no_state_dict_keeps_is_part_of_the_plan() -> None:
    model = between(lambda net, x: x * net.scale, conv(8, 2))
    model.register_buffer("scale", torch.zeros(8, 1, 1), persistent=False)
    result = assert_exact(model, EXAMPLE, {"first": 8}, HALF | {"scale": (4, 1, 1)})

    assert "scale" not in result.model.state_dict()
    assert torch.equal(result.plan.constants["scale"], result.model.get_buffer("scale"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_type_that_the_forward_pass_fixes_for_a_while_is_no_obstacle(dtype: torch.dtype) -> None:
    model = between(lambda net, x: x.to(dtype).relu().to(x.dtype), conv(8, 2))

    assert_exact(model, EXAMPLE, {"first": 8}, HALF)


def test_a_forward_pass_that_fixes_float32_is_measured_in_it_and_the_certificate_says_so() -> None:
    model = Toy(
        lambda net, x: net.last(net.first(nn.functional.one_hot(x, 11).float()).relu()),
        first=nn.Linear(11, 8),
        last=nn.Linear(8, 2),
    )
    result = assert_exact(model, torch.zeros(1, 5, dtype=torch.int64), {"first": 8}, {"last.weight": (2, 4)})

    assert (result.certificate["dtype"], result.certificate["tolerance"]) == ("float32", 1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_type_slims_and_keeps_it(dtype: torch.dtype) -> None:
    model = between(lambda net, x: x.sigmoid(), conv(8, 2)).to(dtype)
    small = assert_exact(model, torch.zeros(1, *IMAGE, dtype=dtype), {"first": 8}, HALF).model

    assert {tensor.dtype for tensor in small.parameters()} == {dtype}


def test_the_features_of_an_embedding_stay_and_the_layers_after_it_slim() -> None:
    model = nn.Sequential(nn.Embedding(11, 8, padding_idx=0), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))

    assert_exact(model, torch.zeros(1, 5, dtype=torch.int64), {"1": 6}, {"0.weight": (11, 8), "3.weight": (2, 3)})


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_what_a_recurrent_layer_reads_stays(kind: str) -> None:
    layer: Any = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](8, 6, batch_first=True)
    found = reason(lambda net, x: net.r(x[:, None])[0], nn.Linear(6, 2), VECTOR, r=layer)

    assert found == f"reaches aten.{kind}, which has no rule"
