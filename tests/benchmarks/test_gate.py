from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_exports import FACTS, exported_here, images, tiny
from torch import nn

from chase.artifact import Artifact
from chase.benchmarks.gate import check_accuracy, drop_of, what_differs
from chase.benchmarks.report import Report, Row
from chase.checkpoint import InputSpec, Network
from chase.errors import AccuracyError, RecipeError
from chase.files import sha256


def row(artifact: str = "slim.onnx", **facts: Any) -> Row:
    rest: dict[str, Any] = {"provider": "cpu", "precision": "fp32", "device": "cpu", "samples_ms": (1.0,)}
    rest |= {"runtime": "onnxruntime", "batch_size": 1, "throughput": 1.0, "size_bytes": 1}
    return Row(artifact=artifact, **rest | facts)


def report(*rows: Row) -> Report:
    return Report(environment={}, rows=rows)


def test_a_loss_that_was_allowed_passes() -> None:
    found = report(
        row(accuracy=71.5, reference_accuracy=72.0),
        row(accuracy=73.0, reference_accuracy=72.0),
        row(accuracy=None, reference_accuracy=72.0),
        row(accuracy=10.0),
    )

    check_accuracy(found)

    assert [drop_of(each) for each in found.rows] == [0.5, -1.0, None, None]


def test_a_loss_beyond_it_names_artifact_accuracy_and_what_was_allowed() -> None:
    found = report(row(accuracy=71.49, reference_accuracy=72.0))

    with pytest.raises(AccuracyError) as caught:
        check_accuracy(found)

    assert caught.value.exit_code == 3
    assert str(caught.value) == (
        "slim.onnx on onnxruntime has 71.49 % top-1, 0.51 points below its fp32 network (72.00 %); "
        "0.5 points are allowed; `chase verify` says what differs"
    )


def test_the_worst_is_named_and_the_others_are_counted_once() -> None:
    found = report(
        *(row("a", accuracy=70.0, reference_accuracy=72.0, batch_size=size) for size in (1, 2)),
        *(row("b", accuracy=60.0, reference_accuracy=72.0, batch_size=size) for size in (1, 2)),
    )

    with pytest.raises(AccuracyError, match=r"^b on .* 12.00 points below .* \(1 more fail\): conv1 differs$"):
        check_accuracy(found, explain=lambda worst: "conv1 differs" if worst.artifact == "b" else None)


def test_the_gate_can_be_moved_and_switched_off() -> None:
    found = report(row(accuracy=70.0, reference_accuracy=72.0))

    check_accuracy(found, max_drop=2.0)
    check_accuracy(found, max_drop=None)
    with pytest.raises(AccuracyError, match="1.9 points are allowed"):
        check_accuracy(found, max_drop=1.9)
    with pytest.raises(RecipeError, match="the accuracy drop allowed is -1; it must be 0 or more points"):
        check_accuracy(found, max_drop=-1)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """A network with BatchNorm, in evaluation mode, and a file that stands for it."""
    path = tmp_path_factory.mktemp("network") / "slim.pt"
    path.write_bytes(b"slim")
    classes, mean, std = FACTS["classes"], FACTS["mean"], FACTS["std"]
    spec = InputSpec(shape=(3, 8, 8), classes=classes, mean=mean, std=std)
    return Network(path=path, kind="slim", model=tiny().eval(), input=spec, content={})


@pytest.fixture(scope="module")
def honest(network: Network) -> Artifact:
    facts = FACTS | {"parent_sha256": sha256(network.path)}
    return exported_here(network.model, network.path.with_name("slim.pt2"), facts=facts)


def planted(network: Network, fault: nn.Module, honest: Artifact) -> Artifact:
    """A file that was exported from `fault` and says that it is the network's."""
    made = exported_here(fault, network.path.with_name("fault.pt2"), facts=FACTS)
    return replace(made, parent_sha256=honest.parent_sha256)


def test_a_wrong_normalisation_is_the_step_that_differs(network: Network, honest: Artifact) -> None:
    wrong = replace(honest, mean=(0.4, 0.4, 0.3))

    assert what_differs(wrong, network, images(8)) == (
        "slim.pt2 says mean [0.4, 0.4, 0.3], its network [0.5, 0.4, 0.3]; export again"
    )


def test_a_shifted_channel_is_found_in_its_layer(network: Network, honest: Artifact) -> None:
    shifted = tiny().eval()
    weight: Any = shifted[0].weight
    with torch.no_grad():
        weight.copy_(weight.roll(1, dims=0))

    found = what_differs(planted(network, shifted, honest), network, images(8))

    assert "the first layer that differs is" in found


def test_a_file_that_is_whole_loses_by_its_precision(network: Network, honest: Artifact) -> None:
    found = what_differs(honest, network, images(8))

    assert found == "its answers are within the parity gate on 8 images: the precision itself loses the accuracy"


def test_an_explanation_never_fails(network: Network, honest: Artifact) -> None:
    found = what_differs(honest, network, torch.zeros(0, 3, 8, 8))

    assert found.startswith("what differs cannot be found (")


def test_the_gate_and_its_explanation_meet(network: Network, honest: Artifact) -> None:
    wrong = replace(honest, std=(0.3, 0.2, 0.1))
    found = report(row(Path(wrong.path).name, accuracy=10.0, reference_accuracy=90.0))

    with pytest.raises(AccuracyError, match=r"80.00 points below .* allowed: slim.pt2 says std"):
        check_accuracy(found, explain=lambda worst: what_differs(wrong, network, images(8)))
