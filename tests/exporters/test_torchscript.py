from __future__ import annotations

from pathlib import Path

import pytest
import torch
from export_networks import NETWORKS, distances
from small_exports import EXAMPLE, images, job_for, tiny
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.errors import ExportError
from chase.exporters.torchscript import write_torchscript
from chase.runtimes import open_runtime
from chase.runtimes.torchscript import no_deprecation


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_answers_as_its_network(name: str, tmp_path: Path) -> None:
    assert max(distances(name, write_torchscript, tmp_path / "net.ts", "torchscript")) < 5e-6


def test_batch_norm_is_folded(tmp_path: Path) -> None:
    write_torchscript(job_for(tiny()), tmp_path / "net.ts")

    with no_deprecation():
        graph = str(torch.jit.load(str(tmp_path / "net.ts")).inlined_graph)
    assert "aten::_convolution" in graph
    assert "batch_norm" not in graph


def test_a_network_in_half_precision_takes_and_gives_fp32(tmp_path: Path) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = tiny().half()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.network(x.half()).float()
            return y

    model = Half().eval()
    write_torchscript(job_for(model), tmp_path / "net.ts")

    source = Artifact(path=tmp_path / "net.ts", format="torchscript", input_shape=tuple(EXAMPLE.shape[1:]))
    with open_runtime(source) as runtime:
        torch.testing.assert_close(runtime.run(images(2)), model(images(2)), atol=1e-2, rtol=0)


def test_a_model_that_cannot_be_traced_is_named_with_its_line(tmp_path: Path) -> None:
    class Stubborn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("not today")

    with pytest.raises(ExportError, match=r"cannot trace Stubborn: not today \(in test_torchscript.py:\d+, forward\)"):
        write_torchscript(job_for(Stubborn()), tmp_path / "net.ts")
    assert not (tmp_path / "net.ts").exists()
