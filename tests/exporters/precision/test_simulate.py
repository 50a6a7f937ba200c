from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from chase.exporters.precision.graph import flat, layers
from chase.exporters.precision.half import halved
from chase.exporters.precision.simulate import Simulation

HALF = torch.float16


class Chain(nn.Module):
    """Four steps in one module each, whose results in fp16 can be told by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList([Scaled(100.0), Scaled(1000.0), Scaled(1e-3), Scaled(0.5)])

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_what_leaves_the_range_is_infinite_until_a_layer_that_is_kept() -> None:
    x = torch.tensor([[1.0, 0.5, 0.0]])
    simulation = Simulation(flat(Chain(), x), HALF)
    names = [f"steps.{index}" for index in range(4)]
    assert list(layers(simulation.module)) == names

    assert simulation.answers(x).tolist() == [[math.inf, 25.0, 0.0]]
    # the 100,000 of a layer that is kept overflows where a layer that is not reads it
    assert simulation.answers(x, {"steps.1"}).tolist() == [[math.inf, 25.0, 0.0]]
    torch.testing.assert_close(simulation.answers(x, {"steps.1", "steps.2"}), x * 50)


def test_numbers_weights_inputs_and_results_are_rounded() -> None:
    rounded = float(torch.tensor(0.1).half())
    x = torch.tensor([[0.1, 3.0]])
    model = nn.Sequential(Scaled(0.1))

    found = Simulation(flat(model, x), HALF).answers(x)

    expected = torch.tensor([[rounded * rounded, 3 * rounded]]).half().float()
    assert torch.equal(found, expected)
    assert torch.equal(found, halved(flat(model, x), HALF)(x))


def test_a_number_beyond_the_range_is_the_largest_there_is_and_not_infinite() -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.masked_fill(x > 1, -1e9) + x).softmax(1)

    x = torch.tensor([[2.0, 3.0, 4.0], [0.0, 1.0, 2.0]])
    module = flat(Masked(), x)

    found = Simulation(module, HALF).answers(x)

    assert bool(found.isfinite().all())
    assert torch.equal(found, halved(module, HALF)(x))


def test_in_attention_the_product_of_query_and_key_can_overflow() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x).flatten(1)

    x = 200 * torch.eye(4)[None, None].repeat(1, 1, 1, 4)  # each scores 200 * 200 * 4 / sqrt(16) = 40000 with itself
    simulation = Simulation(flat(Attention(), x), HALF)

    torch.testing.assert_close(simulation.answers(x), Attention()(x))
    assert bool(simulation.answers(2 * x).isnan().any())


def test_samples_may_be_more_than_one_chunk() -> None:
    x = torch.randn(37, 3)
    simulation = Simulation(flat(Chain(), x), HALF)

    torch.testing.assert_close(simulation.answers(x, layers(simulation.module)), x * 50)
