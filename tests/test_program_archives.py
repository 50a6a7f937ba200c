"""Programs that were tampered with: refused, and nothing in them is ever executed."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chase.errors import CheckpointError
from chase.program import from_program, to_program

MODEL, INPUTS = "archive/models/model.json", "archive/data/sample_inputs/model.pt"
WEIGHTS = "archive/data/weights/model_weights_config.json"
CONSTANTS = "archive/data/constants/model_constants_config.json"
Change = Callable[[bytes], bytes]


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.target),)


class Net(nn.Module):
    """Four weights and a constant [4]."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)
        self.register_buffer("scale", torch.ones(4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.conv(x).mean((2, 3)) * self.scale)
        return y


@pytest.fixture(scope="module")
def archive() -> Tensor:
    return to_program(Net(), torch.zeros(1, 3, 8, 8))


def tampered(archive: Tensor, changes: Mapping[str, Change], added: Mapping[str, bytes] | None = None) -> Tensor:
    """The archive with some entries changed and others added."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive.numpy().tobytes())) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, changes[name](data) if name in changes else data)
        for name, data in (added or {}).items():
            target.writestr(name, data)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def edited(change: Callable[[Any], Any]) -> Change:
    """A change of a document: a function that changes it in place."""

    def apply(data: bytes) -> bytes:
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return apply


def replaced(old: str, new: str) -> Change:
    """A change of every string `old` in a document."""
    return lambda data: data.replace(json.dumps(old).encode(), json.dumps(new).encode())


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def marked(mark: object) -> Change:
    """A weight that claims to be pickled."""

    def change(document: Any) -> None:
        document["config"]["conv.weight"]["use_pickle"] = mark

    return edited(change)


def constant_at(path: str, mark: object) -> Change:
    """A constant that lies elsewhere."""

    def change(document: Any) -> None:
        document["config"]["scale"] |= {"path_name": path, "use_pickle": mark}

    return edited(change)


def sized(expression: str) -> Change:
    """An activation whose size is an expression."""

    def change(document: Any) -> None:
        for value in document["graph_module"]["graph"]["tensor_values"].values():
            value["sizes"][0] = {"as_expr": {"expr_str": expression, "hint": {"as_int": 2}}}

    return edited(change)


def attacks(owned: Path) -> dict[str, tuple[dict[str, Change], dict[str, bytes]]]:
    """What changes in an archive, and what is added to it."""
    call, bomb = f"__import__('os').mkdir({str(owned)!r})", saved(Bomb(owned))
    pickled = pickle.dumps(Bomb(owned))
    pickled += b" " * (-len(pickled) % 4)  # as long as some float32 numbers
    weight = "archive/data/weights/weight_0"
    folder = "archive/data/constants/"
    return {
        "example inputs": ({INPUTS: lambda _: bomb}, {}),
        "weight, marked": ({WEIGHTS: marked(True), weight: lambda _: bomb}, {}),
        "weight, marked by a number": ({WEIGHTS: marked(1), weight: lambda _: bomb}, {}),
        "weight, marked by a word": ({WEIGHTS: marked("yes"), weight: lambda _: bomb}, {}),
        "constant, marked": ({CONSTANTS: constant_at("tensor_0", True), folder + "tensor_0": lambda _: bomb}, {}),
        "object": ({CONSTANTS: constant_at("opaque_obj_0", False)}, {folder + "opaque_obj_0": pickled}),
        "object in a folder": ({CONSTANTS: constant_at("opaque_obj_0/x", False)}, {folder + "opaque_obj_0/x": pickled}),
        "weights of an old format": ({}, {"archive/data/weights/model.pt": bomb}),
        "size that is code": ({MODEL: sized(f"{call} or Integer(2)")}, {}),
        "name that is code": ({MODEL: replaced("x", f"x={call}")}, {}),
        "function that is no operator": ({MODEL: replaced("torch.ops.aten.conv2d.default", "torch.os.mkdir")}, {}),
        "operator that writes files": (
            {MODEL: replaced("torch.ops.aten.conv2d.default", "torch.ops.aten.from_file.default")},
            {},
        ),
        "compiled library": ({}, {"archive/data/aotinductor/model/x.so": b"\x7fELF"}),
    }


@pytest.mark.parametrize("kind", attacks(Path()))
def test_what_could_run_code_is_refused(kind: str, archive: Tensor, tmp_path: Path) -> None:
    changes, added = attacks(tmp_path / "owned")[kind]
    before = tampered(archive, {})
    assert from_program(before)(torch.zeros(3, 3, 8, 8)).shape == (3, 2)

    with pytest.raises(CheckpointError, match="the stored program") as caught:
        from_program(tampered(archive, changes, added))

    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [0, 1, 100, 5000])
def test_a_truncated_program_is_refused_without_a_word_from_torch(
    length: int, archive: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(CheckpointError, match="the stored program cannot be read"):
        from_program(archive[:length])

    assert caplog.records == []
