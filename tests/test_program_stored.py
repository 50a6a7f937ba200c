"""Programs that were tampered with: refused, and nothing in them is ever executed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chase.errors import ChaseError, CheckpointError
from chase.program import from_program, to_program


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.conv(x).mean((2, 3)))
        return y


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return to_program(Net(), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    "name",
    [
        "os.mkdir", "torch.os.mkdir", "torch.load", "torch.hub.load", "operator.methodcaller", "operator.attrgetter",
        "math.__loader__", "builtins.eval", "aten.from_file.default", "aten.save.default", "aten.__class__.mro", "aten",
        "aten.conv2d", "aten.conv2d.default.__call__", "prims.add.default", "higher_order.cond", "", "aten.conv2d._op",
    ],
)  # fmt: skip
def test_only_operators_on_tensors_and_sizes_are_looked_up(name: str, stored: dict[str, Any]) -> None:
    changed = copy.deepcopy(stored)
    changed["steps"][0][0] = name

    with pytest.raises(CheckpointError, match="no operator that a program may hold"):
        from_program(changed)


@pytest.mark.parametrize("name", ["load", "os", "nn", "__builtins__", "ops"])
def test_only_types_are_looked_up_in_torch(name: str, stored: dict[str, Any]) -> None:
    changed = copy.deepcopy(stored)
    changed["steps"][0][1][0][0] = {"torch": name}

    with pytest.raises(ChaseError, match=f"torch.{name} is nothing that a program may hold"):
        from_program(changed)(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("key", ["tensors", "steps", "result"])
@pytest.mark.parametrize("value", [None, 3, "x", [1], {"a": 2}])
def test_a_program_without_its_parts_is_refused(key: str, value: Any, stored: dict[str, Any]) -> None:
    if key != "result":
        with pytest.raises(CheckpointError):
            from_program({**stored, key: value})
    with pytest.raises(CheckpointError, match="broken"):
        from_program({other: part for other, part in stored.items() if other != key})


def test_it_is_plain_data(stored: dict[str, Any], tmp_path: Path) -> None:
    torch.save(stored, tmp_path / "x.pt")

    program = from_program(torch.load(tmp_path / "x.pt", weights_only=True))

    assert program(torch.zeros(3, 3, 8, 8)).shape == (3, 2)
