"""Networks as programs: what comes back runs, exports and is copied as the one that went in."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import randomise_
from torch import Tensor, nn

from chase.errors import TraceError
from chase.exporters import export
from chase.program import from_program, to_program
from chase.runtimes import open_runtime
from chase.slimming import channel_groups
from chase.tracing import evaluating

EXAMPLE = torch.zeros(1, 3, 8, 8)


class Net(nn.Module):
    """A tied weight, a norm, a dropout, a buffer that is not stored, and a view that says the batch size."""

    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Dropout(0.5)
        self.one, self.two, self.fc = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(12, 4)
        self.two.weight = self.one.weight
        self.register_buffer("offset", torch.arange(6.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu().mean((2, 3)) + self.offset
        parts = torch.stack([self.one(x), self.two(x)], dim=1).view(x.shape[0], 12)
        y: Tensor = self.fc(self.drop(parts.relu()))
        return y


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    model = Net().eval()
    randomise_(model)
    return model


@pytest.fixture(scope="module")
def stored(net: nn.Module) -> Any:
    """The program, as a checkpoint holds it."""
    return to_program(net, EXAMPLE)


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_a_program_computes_the_same_for_any_batch_size(net: nn.Module, stored: Any, batch: int) -> None:
    x = torch.randn(batch, 3, 8, 8)

    assert torch.equal(from_program(stored)(x), net(x))


def test_to_program_leaves_the_network_and_its_modes_as_they_were() -> None:
    model = Net()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    program = from_program(to_program(model, EXAMPLE))

    assert (model.training, model.norm.training, model.drop.training) == (True, False, True)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(program(x), program(x))  # no dropout
    with torch.no_grad():
        model.fc.bias.add_(1)
    assert not torch.allclose(program(x), model.eval()(x))  # it has weights of its own


def test_a_program_has_no_training_mode(net: nn.Module, stored: Any) -> None:
    program, x = from_program(stored), torch.randn(4, 3, 8, 8)
    assert not program.training

    program.train()
    assert program.training
    assert torch.equal(program(x), net(x))
    with evaluating(program) as evaluated:
        assert not evaluated.training
        assert torch.equal(evaluated(x), net(x))
    assert program.training


def test_a_copy_and_another_precision_work(net: nn.Module, stored: Any) -> None:
    program, x = from_program(stored), torch.randn(5, 3, 8, 8)

    double = copy.deepcopy(program).double()

    assert torch.allclose(double(x.double()), copy.deepcopy(net).double()(x.double()), rtol=1e-12)
    assert torch.equal(program(x), net(x))
    assert {tensor.dtype for tensor in program.parameters()} == {torch.float32}


def test_what_a_program_holds_is_what_the_network_holds(net: nn.Module, stored: Any) -> None:
    program = from_program(stored)
    ours = sorted(float(parameter.detach().sum()) for parameter in program.parameters())
    theirs = sorted(float(parameter.detach().sum()) for parameter in net.parameters())

    assert ours in (theirs, sorted([*theirs, float(net.get_parameter("one.weight").detach().sum())]))
    assert [group.size for group in channel_groups(program, EXAMPLE)] == [6, 6, 4]


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_a_loaded_program_is_exported_with_any_batch_size(
    net: nn.Module, stored: Any, tmp_path: Path, kind: str
) -> None:
    x = torch.randn(3, 3, 8, 8)

    artifact = export(from_program(stored), tmp_path / f"model.{kind}", example=EXAMPLE, format=kind)

    with open_runtime(artifact.path) as runtime:
        torch.testing.assert_close(runtime.run(x), net(x))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


@pytest.mark.parametrize("model", [Branching(), nn.Linear(5, 2)], ids=["branching", "another shape"])
def test_what_cannot_be_exported_is_refused_in_one_line(model: nn.Module) -> None:
    with pytest.raises(TraceError, match=f"cannot export {type(model).__name__} as a program: ") as caught:
        to_program(model, EXAMPLE)
    assert "\n" not in str(caught.value)
