"""Traces of forward passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from chase.errors import TraceError
from chase.tracing import evaluating, operator, shape, trace


def test_a_trace_lists_operators_with_shapes_for_a_batch_of_two() -> None:
    traced = trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.zeros(1, 3, 5, 6))

    calls = [(operator(node), shape(node)) for node in traced.nodes if operator(node)]
    assert calls == [("aten.conv2d", (2, 4, 3, 4)), ("aten.relu", (2, 4, 3, 4))]


def test_parameters_and_buffers_are_known_by_name() -> None:
    traced = trace(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.zeros(1, 3))

    named = {traced.tensor_name(node) for node in traced.nodes} - {None}
    assert named == {
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    }
    assert traced.tensor_name("not a node") is None


def test_tied_weights_carry_the_first_name() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight

    traced = trace(model, torch.zeros(1, 3))

    weights = [traced.tensor_name(node.args[1]) for node in traced.nodes if operator(node) == "aten.linear"]
    assert weights == ["0.weight", "0.weight"]


def test_a_node_without_a_tensor_has_no_shape_and_an_input_no_operator() -> None:
    traced = trace(nn.ReLU(), torch.zeros(1, 3))

    assert [operator(node) for node in traced.nodes] == ["", "aten.relu", ""]
    assert shape(traced.nodes[-1]) == ()


def test_the_models_modes_are_put_back_one_by_one() -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3))
    model.train()
    model[1].eval()

    with evaluating(model) as inside:
        assert not any(module.training for module in inside.modules())

    assert [module.training for module in model.modules()] == [True, True, False]


def test_tracing_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    trace(model, torch.rand(1, 3))

    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Branches(nn.Module):
    """Looks at its data."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if x.sum() > 0 else x


class Silent(nn.Module):
    """Fails without a word."""

    def forward(self, x: Tensor) -> Tensor:
        raise KeyError


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Branches(), r"cannot trace Branches on an input of shape \[1, 3\]: "),
        (Silent(), r"cannot trace Silent on an input of shape \[1, 3\]: "),
        (nn.Linear(4, 2), r"cannot trace Linear on an input of shape \[1, 3\]: "),
    ],
)
def test_a_model_that_cannot_be_followed_is_one_line(model: nn.Module, message: str) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        trace(model, torch.zeros(1, 3))

    assert "\n" not in str(caught.value)
    assert model.training
