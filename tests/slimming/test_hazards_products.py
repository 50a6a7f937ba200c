"""Hazards: products and sums with parameters, buffers and other activations; attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hazards import IMAGE, TOKENS, VECTOR, Operation, Toy, assert_exact, between, example_of, reason, reasons
from torch import Tensor, nn
from torch.nn import functional as F

TOKEN = example_of(TOKENS)
OTHER = "arrives as something other than zero at last"
BARE = "meets something that is not a channel at mul"
Parts = dict[str, Any]


def zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape))


ON_TOKENS: dict[str, tuple[Operation, Parts, dict[str, tuple[int, ...]]]] = {
    "a scale for each channel": (lambda net, x: x * net.g, {"g": zeros(8)}, {"g": (4,)}),
    "one scale for all": (lambda net, x: x * net.g, {"g": zeros(1)}, {"g": (1,)}),
    "positions": (lambda net, x: x + net.p, {"p": zeros(1, 5, 8)}, {"p": (1, 5, 4)}),
    "the first positions": (lambda net, x: x + net.p[:, : x.shape[1]], {"p": zeros(1, 9, 8)}, {"p": (1, 9, 4)}),
    "positions in a table": (
        lambda net, x: x + net.p(torch.arange(x.shape[1])),
        {"p": nn.Embedding(9, 8)},
        {"p.weight": (9, 4)},
    ),
    "a class token and positions": (
        lambda net, x: (torch.cat([net.c.expand(x.shape[0], -1, -1), x], 1) + net.p)[:, 0],
        {"c": zeros(1, 1, 8), "p": zeros(1, 6, 8)},
        {"c": (1, 1, 4), "p": (1, 6, 4)},
    ),
    "addcmul": (
        lambda net, x: torch.addcmul(x, net.g, net.h(x)),
        {"g": zeros(8), "h": nn.Linear(8, 8)},
        {"g": (4,), "h.weight": (4, 4)},
    ),
    "a product with a diagonal": (lambda net, x: x * net.g.abs().sqrt(), {"g": zeros(8)}, {"g": (4,)}),
}


@pytest.mark.parametrize("name", ON_TOKENS)
def test_parameters_that_meet_channels_are_cut_with_them(name: str) -> None:
    operation, parts, shapes = ON_TOKENS[name]
    model = between(operation, nn.Linear(8, 2), TOKENS, **parts)

    assert_exact(model, TOKEN, {"first": 8}, shapes | {"first.weight": (4, 4), "last.weight": (2, 4)})


SCALES: dict[str, tuple[Operation, tuple[int, ...]]] = {
    "as it is": (lambda net, x: x * net.g, (8, 1, 1)),
    "with a batch axis": (lambda net, x: x * net.g, (1, 8, 1, 1)),
    "viewed": (lambda net, x: x * net.g.view(-1, 1, 1), (8,)),
    "indexed": (lambda net, x: x * net.g[:, None, None], (8,)),
}


@pytest.mark.parametrize("stored", ["parameter", "buffer"])
@pytest.mark.parametrize("name", SCALES)
def test_a_scale_of_each_channel_of_an_image_leaves_in_every_spelling(name: str, stored: str) -> None:
    operation, shape = SCALES[name]
    scale = zeros(*shape) if stored == "parameter" else torch.zeros(shape)
    model = between(operation, nn.Conv2d(8, 2, 1), g=scale)
    cut = tuple(4 if side == 8 else side for side in shape)

    assert_exact(model, example_of(IMAGE), {"first": 8}, {"g": cut, "last.weight": (2, 4, 1, 1)})


HELD: dict[str, tuple[Operation, Parts, str]] = {
    "positions in a buffer": (lambda net, x: x + net.p, {"p": torch.zeros(1, 5, 8)}, OTHER),
    "a class token in a buffer": (
        lambda net, x: torch.cat([net.p.expand(x.shape[0], -1, -1), x], 1),
        {"p": torch.zeros(1, 1, 8)},
        OTHER,
    ),
    "one offset for all": (lambda net, x: x + net.p, {"p": zeros(1)}, OTHER),
    "an offset for each token": (lambda net, x: x + net.p, {"p": zeros(1, 5, 1)}, OTHER),
    "a tensor that belongs to nobody": (lambda net, x: x * net.p[0], {"p": [torch.ones(8)]}, BARE),
    "numbers counted up": (lambda net, x: x * torch.arange(x.shape[-1]), {}, BARE),
    "einsum": (
        lambda net, x: torch.einsum("bnc,oc->bno", x, net.p),
        {"p": zeros(8, 8)},
        "reaches aten.einsum, which has no rule",
    ),
    "two activations": (
        lambda net, x: torch.bmm(x, x.transpose(1, 2)) @ x,
        {},
        "is multiplied with another activation, as in an attention head",
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_what_meets_something_that_is_not_a_channel_or_not_silent_holds(name: str) -> None:
    operation, parts, held = HELD[name]

    assert reason(operation, nn.Linear(8, 2), TOKENS, **parts) == held


PRODUCTS: dict[str, tuple[Operation, Parts, dict[str, tuple[int, ...]]]] = {
    "matmul": (lambda net, x: x @ net.w, {"w": zeros(8, 6)}, {"w": (4, 6)}),
    "batched matmul": (lambda net, x: x @ net.w, {"w": zeros(1, 8, 6)}, {"w": (1, 4, 6)}),
    "bmm": (lambda net, x: torch.bmm(x, net.w.expand(x.shape[0], -1, -1)), {"w": zeros(1, 8, 6)}, {"w": (1, 4, 6)}),
    "a vector": (lambda net, x: (x @ net.w)[..., None].expand(-1, -1, 6), {"w": zeros(8)}, {"w": (4,)}),
    "of two parameters": (lambda net, x: x @ (net.w @ net.v), {"w": zeros(8, 7), "v": zeros(7, 6)}, {"w": (4, 7)}),
    "a buffer": (lambda net, x: x @ net.w, {"w": torch.zeros(8, 6)}, {"w": (4, 6)}),
    "a constant times a parameter": (lambda net, x: x.exp() @ net.w, {"w": zeros(8, 6)}, {"w": (4, 6)}),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_matrix_product_with_a_parameter_loses_its_rows(name: str) -> None:
    operation, parts, shapes = PRODUCTS[name]

    assert_exact(between(operation, nn.Linear(6, 2), TOKENS, **parts), TOKEN, {"first": 8}, shapes)


def test_a_constant_times_a_buffer_holds() -> None:
    found = reason(lambda net, x: x.exp() @ net.w, nn.Linear(6, 2), TOKENS, w=torch.zeros(8, 6))

    assert found is not None
    assert found.startswith("meets something that is not a channel")


def test_a_product_over_tokens_lets_channels_pass() -> None:
    model = between(lambda net, x: net.w @ x, nn.Linear(8, 2), TOKENS, w=zeros(6, 5))

    assert_exact(model, TOKEN, {"first": 8}, {"w": (6, 5), "last.weight": (2, 4)})


def explicit(net: Any, x: Tensor) -> Tensor:
    scores = net.q(x) @ net.k(x).transpose(1, 2) / 8**0.5
    y: Tensor = net.o(scores.softmax(-1) @ net.v(x))
    return y


def fused(net: Any, x: Tensor) -> Tensor:
    y: Tensor = net.o(F.scaled_dot_product_attention(net.q(x), net.k(x), net.v(x)))
    return y


@pytest.mark.parametrize(
    ("operation", "held"),
    [
        (explicit, "is multiplied with another activation, as in an attention head"),
        (fused, "is part of an attention head"),
    ],
)
def test_queries_keys_and_values_stay_and_what_lies_around_them_leaves(operation: Operation, held: str) -> None:
    layers = {name: nn.Linear(8, 8) for name in "qkvo"}
    model = between(operation, nn.Linear(8, 2), TOKENS, **layers)

    assert [reasons(model, TOKEN)[name] for name in "qkv"] == [held] * 3
    assert_exact(model, TOKEN, {"first": 8, "o": 8}, {"q.weight": (8, 4), "o.weight": (4, 8), "last.weight": (2, 4)})


def test_the_attention_module_of_torch_keeps_its_width() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    model = between(lambda net, x: net.m(x, x, x)[0], nn.Linear(8, 2), TOKENS, m=attention)
    found = reasons(model, TOKEN)

    assert found["first"] == ("the forward pass fixes their number: was expecting embedding dimension of 8, but got 4")
    assert found["m"] == "is split by unflatten in m into sizes that do not follow its width"


def test_the_hidden_units_of_a_transformer_layer_leave() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Linear(4, 8), layer, nn.Linear(8, 2))

    assert reasons(model, TOKEN)["0"] == "meets LayerNorm over channels"
    assert_exact(model, TOKEN, {"1.linear1": 16}, {"1.linear1.weight": (8, 8), "1.linear2.weight": (8, 8)})


def test_softmax_over_branches_lets_channels_leave() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.first(x)
        branches, pooled = torch.stack([x, net.o(x)], 1), x.mean((2, 3), keepdim=True)
        shares = torch.stack([net.p(pooled), net.q(pooled)], 1).softmax(1)
        y: Tensor = net.last((branches * shares).sum(1))
        return y

    layers = {name: nn.Conv2d(8, 8, 1) for name in "opq"}
    model = Toy(forward, first=nn.Conv2d(3, 8, 1), last=nn.Conv2d(8, 2, 3, padding=1), **layers)

    assert_exact(model, example_of(IMAGE), {"first": 8}, {"o.weight": (4, 4, 1, 1), "last.weight": (2, 4, 3, 3)})


def test_an_input_with_as_many_entries_as_channels_holds_them() -> None:
    model = Toy(lambda net, x, y: net.last(net.first(x) * y), first=nn.Linear(4, 8), last=nn.Linear(8, 2))

    assert reasons(model, example_of(VECTOR, (8,)))["first"] == BARE
