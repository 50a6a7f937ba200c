from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch
from export_networks import NETWORKS, distances
from small_exports import EXAMPLE, images, job_for, tiny
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.errors import ExportError
from chase.exporters.torch_export import write_torch_export
from chase.runtimes import open_runtime

SLOW = [pytest.param(name, marks=pytest.mark.slow) if name == "squeeze_excite" else name for name in NETWORKS]


@pytest.mark.parametrize("name", SLOW)
def test_a_program_answers_as_its_network(name: str, tmp_path: Path) -> None:
    """The operators are the same; only attention has a faster way of its own in eager mode."""
    bound = 1e-6 if name == "attention" else 0
    assert max(distances(name, write_torch_export, tmp_path / "net.pt2", "torch-export")) <= bound


def test_nothing_of_the_example_or_of_the_code_is_kept(tmp_path: Path) -> None:
    """The example may be somebody's picture, and paths tell where a user keeps things."""
    path = tmp_path / "net.pt2"
    write_torch_export(job_for(tiny()), path)

    with zipfile.ZipFile(path) as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert members["data/sample_inputs/model.pt"] == b""
    everything = b"".join(members.values())
    assert EXAMPLE.numpy().tobytes() not in everything
    assert b".py" not in everything


def test_torchs_own_reader_takes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    model = tiny().eval()
    write_torch_export(job_for(model), path)

    program = torch.export.load(io.BytesIO(path.read_bytes()))
    assert torch.equal(program.module()(images(3)), model(images(3)))


def test_images_go_in_as_bytes(tmp_path: Path) -> None:
    class Prepared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = tiny()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.network(x.permute(0, 3, 1, 2).float() / 255)
            return y

    model, x = Prepared().eval(), torch.arange(384, dtype=torch.int64).reshape(2, 8, 8, 3).remainder(256).byte()
    write_torch_export(job_for(model, x[:1], samples=x), tmp_path / "net.pt2")

    source = Artifact(path=tmp_path / "net.pt2", format="torch-export", input_shape=(3, 8, 8), preprocessing=True)
    with open_runtime(source) as runtime:
        assert torch.equal(runtime.run(x), model(x))


def test_a_model_that_cannot_be_followed_is_named_with_its_line(tmp_path: Path) -> None:
    class Looking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) if x.sum() > 0 else -x.flatten(1)

    with pytest.raises(ExportError, match=r"cannot follow Looking: .* \(in test_torch_export.py:\d+, forward\)"):
        write_torch_export(job_for(Looking()), tmp_path / "net.pt2")
