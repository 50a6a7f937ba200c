from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.benchmarks.accuracy import Score, accuracy, agreement, outputs, score
from chase.benchmarks.candidates import Candidate
from chase.benchmarks.references import References, as_stated
from chase.checkpoint import InputSpec, Network
from chase.errors import DataError
from chase.files import sha256
from chase.runtimes import open_runtime

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 1, 2, 3])


class Brightness(nn.Module):
    """Class 0 for a dark image and class 1 for a bright one."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        level = x.flatten(1).mean(1) + self.bias
        return torch.stack([-level, level], dim=1)


class Levels:
    """A split of images [3, 4, 4] of constant brightness."""

    def __init__(self, levels: Sequence[float], labels: Sequence[int], mean: float = 0.0) -> None:
        self.levels, self.labels, self.mean = levels, torch.tensor(labels), mean

    def __len__(self) -> int:
        return len(self.labels)

    def normalised_with(self, mean: Sequence[float], std: Sequence[float]) -> Levels:
        return Levels(self.levels, self.labels.tolist(), mean[0])

    def batches(self, batch_size: int, device: Any = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
        images = (torch.tensor(self.levels) - self.mean).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)
        yield from zip(torch.split(images, batch_size), torch.split(self.labels, batch_size), strict=True)


SPLIT: Any = Levels([-1.0, 1.0, 2.0, -0.5], [0, 1, 0, 0])


def candidate(source: Any, **facts: Any) -> Candidate:
    rest: dict[str, Any] = {"input_shape": (3, 4, 4), "macs": {}, "params": {}, "size_bytes": 1, "kind": "slim"}
    return Candidate(label="x", source=source, runtime="eager", **rest | facts)


def network(path: Path, model: nn.Module, content: bytes, **input: Any) -> Network:
    path.write_bytes(content)
    return Network(path=path, kind="slim", model=model, input=InputSpec(shape=(3, 4, 4), **input), content={})


def artifact(path: Path, **facts: Any) -> Artifact:
    return Artifact(path=path, format="onnx", input_shape=(3, 4, 4), **facts)


def test_top_1_and_top_5_are_counted() -> None:
    logits = torch.zeros(4, 6)
    logits[0, 0] = 1  # right
    logits[1] = torch.tensor([9.0, 5, 4, 3, 2, 1])  # the second best
    logits[2] = torch.tensor([9.0, 8, 0, 7, 6, 5])  # the last
    logits[3] = torch.tensor([9.0, 8, 7, 6, 5, 0])  # the fourth

    found = score(logits, LABELS)

    assert (found.accuracy, found.top5) == (25, 75)
    assert (found.agreement, found.flipped, found.worst_logit_error, found.reference_accuracy) == (None,) * 4


def test_the_top_5_of_five_classes_say_nothing() -> None:
    assert score(torch.eye(5)[:4], LABELS).top5 is None


def test_answers_are_compared_with_those_of_the_reference() -> None:
    expected = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 4.0]])
    found = torch.tensor([[1.5, 0.0], [0.0, 1.0], [0.0, 3.0], [0.0, 4.0]])

    result = score(found, torch.tensor([0, 0, 0, 1]), expected=expected)

    assert result == Score(
        accuracy=50, agreement=75, flipped=1, worst_logit_error=3.0, reference_accuracy=75, finite=True
    )


def test_probabilities_have_no_logit_error() -> None:
    expected = torch.tensor([[2.0, 0.0], [0.0, 4.0]])

    result = score(expected.softmax(1), torch.tensor([0, 1]), expected=expected, probabilities=True)

    assert (result.agreement, result.flipped, result.worst_logit_error) == (100, 0, None)


def test_answers_that_are_no_numbers_are_told() -> None:
    result = score(torch.tensor([[float("nan"), 0.0]]), torch.tensor([1]), expected=torch.tensor([[0.0, 1.0]]))

    assert (result.finite, result.worst_logit_error) == (False, None)


def test_accuracy_and_agreement_are_percent() -> None:
    with open_runtime(Brightness()) as first, open_runtime(Brightness(bias=0.75)) as second:
        assert accuracy(first, SPLIT, batch_size=3) == 75
        assert accuracy(second, SPLIT) == 50
        assert agreement(first, second, SPLIT, batch_size=1) == 75
        assert outputs(first, SPLIT, batch_size=3)[:, 1].tolist() == [-1, 1, 2, -0.5]


def test_an_empty_split_has_no_accuracy() -> None:
    empty: Any = Levels([], [])

    with open_runtime(Brightness()) as runtime, pytest.raises(DataError, match="the split holds no images"):
        accuracy(runtime, empty)


def test_the_reference_of_an_artifact_is_the_file_with_its_parents_hash(tmp_path: Path) -> None:
    slim = network(tmp_path / "slim.pt", Brightness(), b"slim")
    dense = network(tmp_path / "dense.pt", Brightness(1), b"dense")
    bare = Brightness(2)
    found = References([slim, bare, dense], None, CPU)

    assert found.of(artifact(tmp_path / "a.onnx", parent_sha256=sha256(dense.path), kind="dense")) is dense
    assert found.of(artifact(tmp_path / "a.onnx", parent_sha256=sha256(slim.path))) is slim
    assert found.of(artifact(tmp_path / "a.onnx", parent_sha256="unknown")) is bare
    assert found.of(artifact(tmp_path / "a.onnx")) is bare
    assert found.of(artifact(tmp_path / "a.onnx", kind="dense")) is None
    assert found.of(dense) is dense
    assert found.of(bare) is bare


def test_a_pass_through_the_runtime_tells_all(tmp_path: Path) -> None:
    slim = network(tmp_path / "slim.pt", Brightness(), b"slim")
    tried = candidate(artifact(tmp_path / "a.onnx", parent_sha256=sha256(slim.path)))

    with open_runtime(Brightness(bias=0.75)) as runtime:
        found = References([slim], SPLIT, CPU).score(tried, runtime)

    assert found == Score(accuracy=50, agreement=75, flipped=1, worst_logit_error=0.75, reference_accuracy=75)


def test_the_reference_answers_once(tmp_path: Path) -> None:
    calls: list[int] = []

    class Counted(Brightness):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            return super().forward(x)

    model = Counted()
    references = References([model], SPLIT, CPU)
    with open_runtime(Brightness()) as runtime, open_runtime(model) as own:
        for _ in range(3):
            assert references.score(candidate(artifact(tmp_path / "a.onnx")), runtime).agreement == 100
            assert references.score(candidate(model), own).flipped == 0

    assert calls == [4]


def test_images_are_normalised_as_each_file_says(tmp_path: Path) -> None:
    stated = network(tmp_path / "slim.pt", Brightness(), b"slim", mean=(-1.0,) * 3, std=(1.0,) * 3)
    silent = network(tmp_path / "other.pt", Brightness(), b"other")

    assert next(iter(as_stated(SPLIT, stated).batches(1)))[0].unique().tolist() == [0.0]
    assert as_stated(SPLIT, silent) is SPLIT
    assert as_stated(SPLIT, Brightness()) is SPLIT
    with open_runtime(Brightness()) as runtime:
        assert References([], SPLIT, CPU).score(candidate(stated), runtime).accuracy == 50  # one more is bright


def test_without_data_the_export_has_the_last_word() -> None:
    tried = candidate(Brightness(), parity={"agreement": 99.0, "flipped": 2, "max_abs": 0.5})

    with open_runtime(Brightness()) as runtime:
        found = References([], None, CPU).score(tried, runtime)

        whole = replace(tried, source=artifact(Path("a.onnx"), preprocessing=True))
        probabilities = References([], None, CPU).score(whole, runtime)

    assert found == Score(reason="no data was given", agreement=99.0, flipped=2, worst_logit_error=0.5)
    assert probabilities == replace(found, worst_logit_error=None)


def test_data_of_another_shape_give_no_accuracy() -> None:
    tried = replace(candidate(Brightness()), input_shape=(3, 5, 5))

    with open_runtime(Brightness()) as runtime:
        found = References([], SPLIT, CPU).score(tried, runtime)

    assert found == Score(reason="the data are [3, 4, 4], the network takes [3, 5, 5]")
