"""The first layer that differs: none in correct files, the right one where a fault was planted."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import randomise_
from onnx import numpy_helper
from small_exports import job_for
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.exporters.divergence import Value, first_divergence, paired
from chase.exporters.onnx import onnx_proto
from chase.exporters.parity import Gate
from chase.exporters.precision.graph import flat
from chase.exporters.precision.half import halved
from chase.exporters.torch_export import write_torch_export
from chase.models.resnet import BasicBlock
from chase.program import from_program, to_program

SHAPE = (3, 8, 8)
SAMPLES = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
GATE = Gate(max_rel=1e-5)


class Small(nn.Module):
    """Logits [b, 5] of [b, 3, 8, 8], with a ReLU that is called twice, a shortcut, and steps outside of modules."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.block = BasicBlock(8, 6, 2)
        self.scale = nn.Parameter(torch.rand(6, 1, 1) + 0.5)
        self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 5)
        randomise_(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.relu(self.norm(self.stem(x))))
        out: Tensor = self.last(self.relu(self.first((x * self.scale).mean((2, 3)))))
        return out


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small(seed).eval()


def artifact(path: Path, format: str = "onnx", **facts: Any) -> Artifact:
    return Artifact(path=path, format=format, input_shape=SHAPE, **facts)


def said(model: nn.Module, given: Artifact, gate: Gate = GATE) -> str:
    found = first_divergence(model, given, SAMPLES, gate)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def right() -> Any:
    """The correct ONNX file of `small()`."""
    return onnx_proto(job_for(small(), SAMPLES))[0]


def edited(proto: Any, name: str, edit: Callable[[Any], Any]) -> Any:
    """A copy of an ONNX file with one of its tensors changed."""
    made = copy.deepcopy(proto)
    (tensor,) = (each for each in made.graph.initializer if each.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(edit(numpy_helper.to_array(tensor))), name))
    return made


def saved(proto: Any, folder: Path) -> Artifact:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return artifact(path)


def test_a_correct_onnx_file_differs_nowhere(right: Any, tmp_path: Path) -> None:
    found = said(small(), saved(right, tmp_path), Gate(max_rel=1e-9))

    assert found == "none of its 13 layers differs when they are run one by one on the CPU"


FAULTS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "swapped channels": ("block.conv2.weight", lambda w: w[[1, 0, 2, 3, 4, 5]], "block.bn2 (BatchNorm2d"),
    "a slightly wrong weight": ("block.conv1.weight", lambda w: w + np.float32(1e-3), "block.bn1 (BatchNorm2d"),
    "swapped inputs": ("stem.weight", lambda w: w[:, ::-1], "norm (BatchNorm2d"),
    "the shortcut": ("block.downsample.0.weight", lambda w: w * 1.01, "block.downsample.1 (BatchNorm2d"),
    "a wrong constant": ("scale", lambda w: w[::-1], "scale (mul"),
    "a bias": ("first.bias", lambda w: w + 0.1, "first (Linear"),
    "the last layer": ("last.weight", lambda w: -w, "last (Linear"),
    "a number that is none": ("last.bias", lambda w: w * np.float32("nan"), "last (Linear, not finite"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_where_it_is(fault: str, right: Any, tmp_path: Path) -> None:
    name, edit, layer = FAULTS[fault]

    found = said(small(), saved(edited(right, name, edit), tmp_path))

    assert found.startswith(f"the first layer that differs is {layer}")


def test_the_size_of_the_difference_is_told(right: Any, tmp_path: Path) -> None:
    wrong = saved(edited(right, "last.weight", lambda w: -w), tmp_path)

    assert said(small(), wrong).endswith(" relative)")
    assert said(small(), wrong, Gate(snr_db=20)).endswith(" dB)")


def test_a_file_of_another_parent_differs_from_the_first_layer_on(right: Any, tmp_path: Path) -> None:
    assert "differs is norm (BatchNorm2d" in said(small(seed=1), saved(right, tmp_path))


def exported(model: nn.Module, folder: Path, **facts: Any) -> Artifact:
    write_torch_export(job_for(model, SAMPLES), folder / "model.pt2")
    return artifact(folder / "model.pt2", "torch-export", **facts)


def test_a_torch_export_program_is_compared_step_by_step(tmp_path: Path) -> None:
    assert said(small(), exported(small(), tmp_path), Gate(max_rel=0)).startswith("none of its ")

    wrong = small()
    wrong.state_dict()["block.bn2.running_mean"][1] += 0.1

    assert "the first layer that differs is block.bn2 (BatchNorm2d" in said(small(), exported(wrong, tmp_path))


def test_a_network_without_modules_names_the_layer_by_its_weights(tmp_path: Path) -> None:
    program = from_program(to_program(small(), SAMPLES)).eval()
    wrong = copy.deepcopy(program)
    wrong.state_dict()["network.block.bn2.weight"].mul_(1.01)

    found = said(program, exported(wrong, tmp_path))

    assert "the first layer that differs is network.block.bn2 (batch_norm" in found


def test_a_norm_in_training_mode_is_found(tmp_path: Path) -> None:
    job = job_for(small(), SAMPLES)
    job.model.get_submodule("block.bn1").train()  # torch.onnx would write it as if it were not
    write_torch_export(job, tmp_path / "model.pt2")

    found = said(small(), artifact(tmp_path / "model.pt2", "torch-export"))

    assert "the first layer that differs is block.bn1 (BatchNorm2d" in found


def test_half_precision_itself_is_no_fault_but_a_layer_that_overflows_is(tmp_path: Path) -> None:
    model, overflowing = small(), small()
    overflowing.block.bn1.weight.data[0] = 1e6
    half, broken = (halved(flat(each, SAMPLES), torch.float16) for each in (model, overflowing))

    assert said(model, exported(half, tmp_path, precision="fp16"), Gate(snr_db=40)).startswith("none of its ")

    found = said(overflowing, exported(broken, tmp_path, precision="fp16"), Gate(snr_db=40))
    assert "the first layer that differs is block.conv1 (Conv2d, not finite)" in found


@pytest.mark.parametrize(
    ("format", "instead"),
    [("torchscript", "torch-export"), ("aoti", "torch-export"), ("executorch", "torch-export")]
    + [(name, "onnx") for name in ("openvino", "tensorrt", "tensorrt-rtx")],
)
def test_a_format_that_hides_its_layers_says_so(format: str, instead: str, tmp_path: Path) -> None:
    found = said(small(), artifact(tmp_path / "none", format, precision="fp16"))

    assert found == (
        f"{format} hides its layers; to see which one differs, export to {instead} in fp16 and verify that"
    )


def test_a_triton_repository_is_looked_into(right: Any, tmp_path: Path) -> None:
    saved(edited(right, "last.weight", lambda w: -w), tmp_path)
    settings = {"inner_path": "model.onnx", "inner_format": "onnx", "inner": {}}

    assert "last (Linear" in said(small(), artifact(tmp_path, "triton", settings=settings))


def unlabelled(proto: Any) -> bytes:
    made = copy.deepcopy(proto)
    for node in made.graph.node:
        del node.metadata_props[:]
    content: bytes = made.SerializeToString()
    return content


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_a_foreign_file_raises_nothing(format: str, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "model"
    if content is not None:
        path.write_bytes(content)

    assert said(small(), artifact(path, format)).startswith("its layers cannot be compared (")


def test_a_file_without_labels_is_compared_at_its_end(right: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(unlabelled(edited(right, "stem.weight", lambda w: -w)))

    assert "the first layer that differs is last (Linear" in said(small(), artifact(tmp_path / "model.onnx"))


def test_a_network_that_cannot_be_traced_raises_nothing(right: Any, tmp_path: Path) -> None:
    class Raising(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("no tracing today")

    assert "its layers cannot be compared (no tracing today)" in said(Raising(), saved(right, tmp_path))


def test_a_file_of_another_shape_raises_nothing(right: Any, tmp_path: Path) -> None:
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(7)).eval()
    other(SAMPLES)

    assert "differs" in said(other, saved(right, tmp_path))


def test_without_a_bound_there_is_nothing_to_say(right: Any, tmp_path: Path) -> None:
    assert first_divergence(small(), saved(right, tmp_path), SAMPLES, Gate(agreement=99)) is None


def values(*entries: str) -> list[Value]:
    """Values of a text such as "block conv2d_1"."""
    made = []
    for entry in entries:
        module, _, name = entry.rpartition(" ")
        operator, _, turn = name.partition("_")
        made.append(Value(name, module, operator, int(turn or 0)))
    return made


def names(pairs: dict[str, Value]) -> dict[str, str]:
    return {name: value.name for name, value in pairs.items()}


def test_a_module_that_runs_once_is_paired_at_its_end() -> None:
    expected = values("a conv2d", "a add", "b mul", "c relu")
    actual = values("a conv2d_5", "b div", "b mul_7", "a add_9", "c relu_3")

    assert names(paired(expected, actual)) == {"add": "add_9", "mul": "mul_7", "relu": "relu_3"}


def test_what_the_other_graph_lacks_is_passed_over() -> None:
    expected = values("a conv2d", "b batch", "a add", "c relu")

    assert names(paired(expected, values("b batch_1", "c relu_1"))) == {"batch": "batch_1", "relu": "relu_1"}


def test_a_module_that_runs_again_is_paired_in_turn_whatever_the_order() -> None:
    expected = values("a relu", "b conv2d", "a relu_1", "c conv2d_1")

    found = names(paired(expected, values("a relu_6", "b conv2d", "a relu_2", "c conv2d_1")))

    assert found == {"relu": "relu_2", "conv2d": "conv2d", "relu_1": "relu_6", "conv2d_1": "conv2d_1"}


def test_operators_that_one_graph_has_more_often_are_not_paired() -> None:
    expected = values(" conv2d", " relu", " conv2d_1", " relu_1")

    found = names(paired(expected, values(" conv2d", " relu", " relu_1")))

    assert found == {"relu": "relu", "relu_1": "relu_1"}
