"""Hazards: modules and weights that are used more than once, and channels that are joined and taken apart again."""

from __future__ import annotations

from typing import Any

import torch
from hazards import IMAGE, TOKENS, VECTOR, Toy, assert_exact, example_of, reasons
from torch import Tensor, nn
from torch.nn import functional as F

OUT = "is an output of the model"


def conv(channels: int, width: int, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 1, **settings)


def test_a_module_that_runs_twice_ties_what_it_reads_to_what_it_makes() -> None:
    model = Toy(
        lambda net, x: net.last(net.shared(net.shared(net.first(x)).relu())),
        first=conv(3, 8),
        shared=conv(8, 8),
        last=conv(8, 2),
    )
    shapes = {"first.weight": (4, 3, 1, 1), "shared.weight": (4, 4, 1, 1), "last.weight": (2, 4, 1, 1)}

    assert_exact(model, example_of(IMAGE), {"first": 8}, shapes)


def test_a_module_that_two_branches_share_ties_their_inputs_and_its_outputs_by_themselves() -> None:
    model = Toy(
        lambda net, x: net.last(torch.cat([net.shared(net.a(x)), net.shared(net.b(x))], 1)),
        a=conv(3, 8),
        b=conv(3, 8),
        shared=conv(8, 6),
        last=conv(12, 2),
    )
    shapes = {"a.weight": (4, 3, 1, 1), "b.weight": (4, 3, 1, 1), "shared.weight": (3, 4, 1, 1)}

    assert_exact(model, example_of(IMAGE), {"a": 8, "shared": 6}, shapes | {"last.weight": (2, 6, 1, 1)})


def test_a_batch_norm_that_two_branches_share_ties_them() -> None:
    model = Toy(
        lambda net, x: net.one(net.bn(net.a(x)).relu()) + net.two(net.bn(net.b(x))),
        a=conv(3, 8),
        b=conv(3, 8),
        bn=nn.BatchNorm2d(8),
        one=conv(8, 2),
        two=conv(8, 2),
    )
    shapes = {"a.weight": (4, 3, 1, 1), "b.weight": (4, 3, 1, 1), "bn.running_var": (4,), "two.weight": (2, 4, 1, 1)}

    assert_exact(model, example_of(IMAGE), {"a": 8}, shapes)


def test_two_layers_with_one_weight_are_tied_along_both_of_its_axes() -> None:
    one, other = nn.Linear(6, 6), nn.Linear(6, 6)
    other.weight = one.weight
    model = Toy(
        lambda net, x: net.last(net.b(net.a(net.first(x)).relu()).relu()),
        first=nn.Linear(4, 6),
        a=one,
        b=other,
        last=nn.Linear(6, 2),
    )
    shapes: dict[str, tuple[int, ...]] = {"a.weight": (3, 3), "b.bias": (3,), "last.weight": (2, 3)}

    small: Any = assert_exact(model, example_of(VECTOR), {"first": 6}, shapes).model

    assert small.b.weight is small.a.weight


def test_an_autoencoder_with_transposed_weights_loses_hidden_and_visible_units() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        hidden = net.enc(net.first(x)).relu()
        y: Tensor = net.last(F.linear(hidden, net.enc.weight.t(), net.bias))
        return y

    model = Toy(
        forward, first=nn.Linear(4, 6), enc=nn.Linear(6, 8), bias=nn.Parameter(torch.zeros(6)), last=nn.Linear(6, 2)
    )
    shapes: dict[str, tuple[int, ...]] = {"enc.weight": (4, 3), "bias": (3,), "last.weight": (2, 3)}

    assert_exact(model, example_of(VECTOR), {"first": 6, "enc": 8}, shapes)


def test_an_embedding_that_is_also_the_head_loses_features_and_keeps_its_rows() -> None:
    model = Toy(
        lambda net, x: net.head(net.mid(net.emb(x)).relu()),
        emb=nn.Embedding(11, 8),
        mid=nn.Linear(8, 8),
        head=nn.Linear(8, 11, bias=False),
    )
    model.head.weight = model.emb.weight  # type: ignore[union-attr]
    tokens = torch.zeros(1, 5, dtype=torch.int64)

    assert reasons(model, tokens)["emb"] == "is a row of an embedding"
    assert_exact(model, tokens, {"mid": 8}, {"emb.weight": (11, 4), "mid.weight": (4, 4)})


def test_a_bias_that_two_layers_share_ties_their_channels() -> None:
    one, other = nn.Linear(8, 6), nn.Linear(8, 6)
    other.bias = one.bias
    model = Toy(
        lambda net, x: net.last(torch.cat([net.a(net.first(x)), net.b(2 * net.first(x))], 1).relu()),
        first=nn.Linear(4, 8),
        a=one,
        b=other,
        last=nn.Linear(12, 2),
    )
    shapes: dict[str, tuple[int, ...]] = {"a.weight": (3, 4), "b.weight": (3, 4), "last.weight": (2, 6)}

    assert_exact(model, example_of(VECTOR), {"first": 8, "a": 6}, shapes)


def test_a_bias_that_two_layers_share_takes_no_constant_of_one_of_them() -> None:
    one, other = nn.Linear(8, 6), nn.Linear(8, 6)
    other.bias = one.bias
    model = Toy(
        lambda net, x: torch.cat([net.a(net.first(x).sigmoid()), net.b(net.first(x))], 1),
        first=nn.Linear(4, 8),
        a=one,
        b=other,
    )

    assert reasons(model, example_of(VECTOR))["first"] == (
        "arrives as the constant 0.5 with no bias of its own to fold it into, at a"
    )
    assert_exact(model, example_of(VECTOR), {}, {})


def test_chunks_of_a_concatenation_keep_equally_many_channels() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        one, other = torch.cat([net.a(x), net.b(x), net.c(x)], 1).chunk(2, 1)
        y: Tensor = net.last(one * other)
        return y

    model = Toy(forward, a=conv(3, 4), b=conv(3, 4), c=conv(3, 4), last=conv(6, 2))
    result = assert_exact(model, example_of(IMAGE), {"a": 6}, {"last.weight": (2, 3, 1, 1)})

    assert sum(result.plan.shapes[f"{name}.weight"][0] for name in "abc") == 6


def test_a_concatenation_that_is_split_at_numbers_in_the_code_stays() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        one, other = torch.split(torch.cat([net.a(x), net.b(x)], 1), [4, 8], 1)
        y: Tensor = net.one(one) + net.two(other)
        return y

    model = Toy(forward, a=conv(3, 4), b=conv(3, 8), one=conv(4, 2), two=conv(8, 2))
    reason = "is cut at fixed positions by split_with_sizes"

    assert reasons(model, example_of(IMAGE)) == {"a": reason, "b": reason, "one": OUT}


def test_a_split_into_halves_of_the_width_lets_channels_leave() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.first(x)
        one, other = x.split(x.shape[1] // 2, 1)
        y: Tensor = net.last(torch.cat([other, one], 1))
        return y

    model = Toy(forward, first=conv(3, 8), last=conv(8, 2))

    assert_exact(model, example_of(IMAGE), {"first": 8}, {"first.weight": (4, 3, 1, 1), "last.weight": (2, 4, 1, 1)})


def test_a_convolution_over_several_sources_loses_the_columns_of_each() -> None:
    model = Toy(
        lambda net, x: net.last(torch.cat([net.a(x), x, net.b(x).relu()], 1)),
        a=conv(3, 4),
        b=conv(3, 6),
        last=conv(13, 2),
    )
    shapes = {"a.weight": (2, 3, 1, 1), "b.weight": (3, 3, 1, 1), "last.weight": (2, 2 + 3 + 3, 1, 1)}

    assert_exact(model, example_of(IMAGE), {"a": 4, "b": 6}, shapes)


def test_every_layer_of_a_dense_block_loses_the_channels_of_all_before_it() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        features = [net.c0(x)]
        for layer in (net.c1, net.c2, net.c3):
            features.append(layer(torch.cat(features, 1)).relu())
        y: Tensor = net.last(torch.cat(features, 1))
        return y

    model = Toy(forward, c0=conv(3, 8), c1=conv(8, 4), c2=conv(12, 4), c3=conv(16, 4), last=conv(20, 2))
    shapes = {"c1.weight": (2, 4, 1, 1), "c2.weight": (2, 6, 1, 1), "c3.weight": (2, 8, 1, 1)}

    assert_exact(
        model, example_of(IMAGE), {"c0": 8, "c1": 4, "c2": 4, "c3": 4}, shapes | {"last.weight": (2, 10, 1, 1)}
    )


def test_a_gated_linear_unit_by_chunks_ties_values_to_gates() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        value, gate = net.first(x).chunk(2, -1)
        y: Tensor = net.last(value * gate.sigmoid())
        return y

    model = Toy(forward, first=nn.Linear(4, 8), last=nn.Linear(4, 2))

    assert_exact(model, example_of(TOKENS), {"first": 4}, {"first.weight": (4, 4), "last.weight": (2, 2)})


def test_the_channels_that_a_shortcut_pads_with_zeros_stay() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.first(x)
        y: Tensor = net.last(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)) + net.conv(x))
        return y

    model = Toy(forward, first=conv(3, 8), conv=nn.Conv2d(8, 12, 3, stride=2, padding=1), last=conv(12, 2))
    shapes = {"first.weight": (4, 3, 1, 1), "conv.weight": (2 + 4 + 2, 4, 3, 3), "last.weight": (2, 8, 1, 1)}

    assert_exact(model, example_of(IMAGE), {"first": 8}, shapes)
