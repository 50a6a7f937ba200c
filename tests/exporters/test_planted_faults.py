"""Files with a fault planted in them: verification finds each, says what it is, and touches nothing."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from small_exports import EXAMPLE, exported_here, images, job_for, tiny
from torch import nn

from chase.artifact import Artifact, facts_of
from chase.checkpoint import InputSpec, Network, load_network, save
from chase.errors import ParityError
from chase.exporters import verify
from chase.exporters.precision.graph import flat
from chase.exporters.precision.half import halved
from chase.exporters.torch_export import write_torch_export
from chase.files import sha256
from chase.program import to_program

INPUT = InputSpec(shape=(3, 8, 8), classes=("cat", "dog", "eel", "fox"), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
COUNTS = {"macs": {"theoretical": 1, "gpu_supported": 2, "dense": 3}, "params": {"nonzero": 1, "stored": 2, "dense": 3}}


def slim(path: Path, model: nn.Module) -> Network:
    """A network in a file, with samples in it."""
    program = {"name": "tiny", "program": to_program(model.eval(), EXAMPLE)}
    content: dict[str, Any] = {"input": INPUT, "widths": None, "masks": None, "facts": COUNTS, "samples": images(8)}
    save(path, kind="slim", model=program, network=model, **content)
    return load_network(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with slim.pt and model.onnx, which answers as it does."""
    folder = tmp_path_factory.mktemp("made")
    network = slim(folder / "slim.pt", tiny())
    exported_here(network.model, folder / "model.onnx", facts=facts_of(network))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_a_file_without_fault_passes(folder: Path) -> None:
    network = load_network(folder / "slim.pt")

    parity = verify(Artifact.load(folder / "model.onnx"), network, isolated=False)

    assert (parity.samples, parity.agreement) == (8, 100)
    assert parity.max_rel < 1e-5


def described(folder: Path, **changes: Any) -> None:
    """Another description of the same file."""
    dataclasses.replace(Artifact.load(folder / "model.onnx"), **changes).save()


def written(folder: Path, **changes: Any) -> None:
    """The description of a file that was written anew."""
    described(folder, sha256=sha256(folder / "model.onnx"), **changes)


def swapped_channels(folder: Path) -> None:
    """The colours of the images in another order, inside the file."""
    proto = onnx.load(str(folder / "model.onnx"))
    (weight,) = (each for each in proto.graph.initializer if each.name.endswith("0.weight"))
    swapped = np.ascontiguousarray(numpy_helper.to_array(weight)[:, ::-1])
    weight.CopyFrom(numpy_helper.from_array(swapped, weight.name))
    (folder / "model.onnx").write_bytes(proto.SerializeToString())


def swapped_and_described(folder: Path) -> None:
    swapped_channels(folder)
    written(folder)


def training_mode(folder: Path) -> None:
    job = job_for(tiny())
    job.model.get_submodule("1").train()
    write_torch_export(job, folder / "model.onnx")
    written(folder, format="torch-export")


def other_preprocessing(folder: Path) -> None:
    """Inside the file another mean than in its description."""
    network = load_network(folder / "slim.pt")
    facts = facts_of(network)
    wrong = facts | {"mean": (0.4, 0.4, 0.4)}
    exported_here(network.model, folder / "model.ts", facts=wrong, preprocessing=True).path.replace(
        folder / "model.onnx"
    )
    (folder / "model.ts.json").unlink()
    written(folder, format="torchscript", preprocessing=True)


def overflow_in_half(folder: Path) -> None:
    """A layer beyond the range of float16, in a file that keeps none in float32."""
    model = tiny()
    model.get_submodule("1").get_parameter("weight").data.mul_(1e6)
    network = slim(folder / "slim.pt", model)
    half = halved(flat(network.model, EXAMPLE), torch.float16)
    write_torch_export(job_for(half), folder / "model.onnx")
    written(folder, format="torch-export", precision="fp16", parent_sha256=sha256(folder / "slim.pt"))


def another_parent(folder: Path) -> None:
    torch.manual_seed(5)
    slim(folder / "slim.pt", nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))


DIFFERS = r"differs from its network by .*; the tolerance is .*; "
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "wrong mean": (
        lambda folder: described(folder, mean=(0.5, 0.5, 0.3)),
        r"says mean \[0.5, 0.5, 0.3\], its network \[0.5, 0.4, 0.3\]; export again",
    ),
    "wrong std": (lambda folder: described(folder, std=()), r"says std \[\], its network \[0.2, 0.2, 0.1\]"),
    "classes in another order": (
        lambda folder: described(folder, classes=("dog", "cat", "eel", "fox")),
        r"says classes \['dog', 'cat', 'eel', 'fox'\], its network \['cat', 'dog'",
    ),
    "changed file": (swapped_channels, "is not the file that was exported: its SHA-256 has changed; export again"),
    "swapped channels": (
        swapped_and_described,
        DIFFERS + r"the first layer that differs is network.1 \(batch_norm, ",
    ),
    "norm in training mode": (
        training_mode,
        DIFFERS + r"the first layer that differs is network.1 \(batch_norm, ",
    ),
    "other mean inside": (
        other_preprocessing,
        DIFFERS + "torchscript hides its layers; .* export to torch-export in fp32",
    ),
    "another parent": (another_parent, r"was made from [0-9a-f]{12}…, but .*slim.pt is [0-9a-f]{12}…; export again"),
    "overflow in half precision": (
        overflow_in_half,
        r"answers with values that are not finite; the first layer that differs is :conv2d \(conv2d, not finite\)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_nothing_is_touched(fault: str, folder: Path) -> None:
    plant, message = FAULTS[fault]
    plant(folder)
    before = {each.name: each.read_bytes() for each in folder.iterdir()}

    with pytest.raises(ParityError, match=f"^model.onnx {message}") as caught:
        verify(Artifact.load(folder / "model.onnx"), load_network(folder / "slim.pt"), isolated=False)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before
