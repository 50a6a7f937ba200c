"""Scores of single weights."""

from __future__ import annotations

import pytest
import torch

from chase.errors import UnknownName
from chase.sparse.scores import SCORES, gradient, magnitude, random

WEIGHT = torch.tensor([[-3.0, 0.0], [0.5, 2.0]])
GRAD = torch.tensor([[0.0, -1.0], [4.0, 0.25]])


def test_magnitude_is_the_weights_and_gradient_is_the_gradients() -> None:
    generator = torch.Generator()

    assert magnitude(WEIGHT, GRAD, generator).abs().tolist() == [[3.0, 0.0], [0.5, 2.0]]
    assert gradient(WEIGHT, GRAD, generator).abs().tolist() == [[0.0, 1.0], [4.0, 0.25]]


def test_random_depends_on_the_generator_alone() -> None:
    draws = [random(w, GRAD, torch.Generator().manual_seed(3)) for w in (WEIGHT, -WEIGHT)]
    other = random(WEIGHT, GRAD, torch.Generator().manual_seed(4))

    assert torch.equal(*draws)
    assert not torch.equal(draws[0], other)
    assert draws[0].shape == WEIGHT.shape


def test_a_wrong_name_is_explained() -> None:
    with pytest.raises(UnknownName, match="no score named 'magnitud'; did you mean 'magnitude'?"):
        SCORES["magnitud"]
