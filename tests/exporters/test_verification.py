"""Verification: which batches a file is tried with, what is compared, and what is refused before anything runs.

What it finds in real files is in test_planted_faults.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.checkpoint import InputSpec, Network
from chase.errors import MissingDependency, ParityError, RecipeError
from chase.exporters import Gate, Parity, verify
from chase.exporters.verification import check, compare_modules
from chase.files import sha256
from chase.runtimes import RUNTIMES

GATE = Gate(max_rel=1e-5)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).eval()


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(1))


class Fake:
    """A runtime whose answers are a function of what it is given; notes the batches."""

    formats: ClassVar[tuple[str, ...]] = ("fake",)

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        self.name, self.provider, self.device = "fake", "fake", torch.device("cpu")
        self.answer, self.batches = answer, list[Tensor]()

    def __call__(self, source: Any, *, device: torch.device, threads: int | None = None) -> Fake:
        return self

    def run(self, x: Tensor) -> Tensor:
        self.batches.append(x)
        with torch.inference_mode():
            return self.answer(x)

    def __enter__(self) -> Fake:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Tensor], Tensor]], Fake]:
    """Makes the runtime of the format "fake" answer as it is told."""

    def install(answer: Callable[[Tensor], Tensor]) -> Fake:
        fake = Fake(answer)
        monkeypatch.setitem(RUNTIMES, "fake", fake)
        return fake

    return install


def artifact(**facts: Any) -> Artifact:
    known: dict[str, Any] = {"path": Path("model.fake"), "format": "fake", "input_shape": (3, 2, 2)}
    return Artifact(**(known | facts))


def checked(samples: Tensor, gate: Gate = GATE, **facts: Any) -> Parity:
    return check(network(), artifact(**facts), samples, gate=gate, isolated=False)


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (1, None, [1, 3]),
        (2, None, [2, 3]),
        (3, None, [3, 2]),
        (8, None, [8, 3]),
        (40, None, [32, 32, 3]),
        (8, (1, 8, 32), [8, 3]),
        (3, (4, 8, 16), [4, 16]),  # samples come again to fill a batch
        (20, (4, 8, 8), [8, 8, 8, 8]),
        (5, (1, 1, 1), [1, 1, 1, 1, 1, 1]),
        (5, (2, 2, 4), [4, 4, 3]),
    ],
)
def test_a_file_is_tried_with_all_samples_at_two_batch_sizes_that_it_takes(
    count: int, sizes: tuple[int, ...] | None, expected: list[int], answering: Any
) -> None:
    fake, samples = answering(network()), images(count)

    parity = checked(samples, batch_sizes=sizes)

    assert [len(each) for each in fake.batches] == expected
    assert torch.equal(torch.cat(fake.batches)[:count], samples)
    assert (parity.samples, parity.flipped) == (count, 0)
    assert parity.max_rel < 1e-6


def test_the_parity_is_that_of_all_samples_and_its_distance_the_worst(answering: Any) -> None:
    def answer(x: Tensor) -> Tensor:
        out: Tensor = network()(x)
        return out * (1 + (0.2 if len(x) == 3 else 0.1))

    answering(answer)
    samples = images(8)

    parity = checked(samples, Gate(max_rel=1))

    few = network()(samples[:3]).detach().abs().max()
    assert parity.max_rel == pytest.approx(0.2)
    assert parity.max_abs == pytest.approx(0.2 * float(few))
    assert parity.samples == 8
    assert parity.snr_db == pytest.approx(20)


def test_a_file_that_holds_for_one_batch_size_alone_is_caught(answering: Any) -> None:
    def answer(x: Tensor) -> Tensor:
        out: Tensor = network()(x)
        return out if len(x) == 8 else out * 1.01

    answering(answer)

    with pytest.raises(
        ParityError, match="model.fake differs from its network by 1.00e-02 relative .*; fake hides its"
    ):
        checked(images(8))


def test_a_difference_in_the_last_sample_alone_is_caught(answering: Any) -> None:
    def answer(x: Tensor) -> Tensor:
        out: Tensor = network()(x)
        return out + 0.1 * (x == images(40)[-1]).flatten(1).all(1)[:, None]

    answering(answer)

    with pytest.raises(ParityError, match="differs"):
        checked(images(40))


def test_a_batch_that_cannot_be_run_is_named(answering: Any) -> None:
    def answer(x: Tensor) -> Tensor:
        if len(x) != 8:
            raise RecipeError("only 8")
        out: Tensor = network()(x)
        return out

    answering(answer)

    with pytest.raises(ParityError, match=r"^model.fake cannot run a batch of 3 \(only 8\)$"):
        checked(images(8))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: torch.full((len(x), 5), float("nan")), "differs from its network by nan relative"),
        (lambda x: torch.zeros(len(x), 4), r"answers with \[8, 4\], its network with \[8, 5\]"),
        (lambda x: network()(x)[:1], r"answers with \[1, 5\], its network with \[8, 5\]"),
    ],
)
def test_answers_of_another_kind_are_caught(answer: Callable[[Tensor], Tensor], message: str, answering: Any) -> None:
    answering(answer)

    with pytest.raises(ParityError, match=message):
        checked(images(8))


def test_answers_in_half_precision_are_compared_as_numbers(answering: Any) -> None:
    answering(lambda x: network()(x).half())

    assert checked(images(8), Gate(snr_db=40)).snr_db == pytest.approx(70, abs=10)


def test_a_wider_image_is_tried_where_the_size_is_open(answering: Any) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    fake = answering(model)

    check(model, artifact(settings={"dynamic_size": True}), images(8), gate=GATE, isolated=False)

    assert [list(each.shape) for each in fake.batches] == [[8, 3, 2, 2], [3, 3, 2, 2], [2, 3, 4, 4]]


def test_two_networks_are_compared_without_a_file() -> None:
    other = network()
    assert compare_modules(network(), other, images(8), gate=GATE, name="model").max_rel == 0

    other.get_submodule("1").get_parameter("bias").data += 0.01

    with pytest.raises(ParityError, match="model differs from its network"):
        compare_modules(network(), other, images(8), gate=GATE, name="model")


def parent(folder: Path, **content: Any) -> Network:
    """A network in a file, of which only the hash counts."""
    (folder / "slim.pt").write_bytes(b"network")
    spec = InputSpec(shape=(3, 2, 2), classes=("a", "b", "c", "d", "e"), mean=(0.5, 0.4, 0.3), std=(0.1, 0.1, 0.2))
    return Network(path=folder / "slim.pt", kind="slim", model=network(), input=spec, content=content)


def child_of(network: Network, **facts: Any) -> Artifact:
    known = {name: getattr(network, name) for name in ("classes", "mean", "std", "input_shape")}
    return artifact(**(known | {"parent_sha256": sha256(network.path)} | facts))


def test_a_file_is_verified_on_the_samples_of_its_network(tmp_path: Path, answering: Any) -> None:
    fake, known = answering(network()), parent(tmp_path, samples=images(4))

    parity = verify(child_of(known), known, isolated=False)

    assert parity.samples == 4
    assert torch.equal(fake.batches[0], images(4))
    assert verify(child_of(known), known, samples=images(6), isolated=False).samples == 6


def test_a_file_with_its_preprocessing_is_given_what_it_takes(tmp_path: Path, answering: Any) -> None:
    known = parent(tmp_path, samples=images(4))

    def answer(x: Tensor) -> Tensor:
        mean, std = (torch.tensor(values) for values in (known.mean, known.std))
        out: Tensor = known.model(((x.float() / 255 - mean) / std).permute(0, 3, 1, 2)).softmax(1)
        return out

    fake = answering(answer)

    parity = verify(child_of(known, preprocessing=True), known, isolated=False)

    assert (fake.batches[0].dtype, list(fake.batches[0].shape)) == (torch.uint8, [4, 2, 2, 3])
    assert parity.max_rel < 1e-5


@pytest.mark.parametrize("content", [{}, {"samples": None}, {"samples": torch.zeros(0, 3, 2, 2)}])
def test_without_samples_there_is_nothing_to_verify_on(tmp_path: Path, content: dict[str, Any]) -> None:
    known = parent(tmp_path, **content)

    with pytest.raises(RecipeError, match="slim.pt carries no sample images; name some with --data"):
        verify(child_of(known), known, isolated=False)


def test_a_runtime_or_a_device_that_is_not_here_is_no_parity(tmp_path: Path, answering: Any) -> None:
    answering(network())
    known = parent(tmp_path, samples=images(2))

    with pytest.raises(RecipeError, match="eager cannot run files of the format fake"):
        verify(child_of(known), known, runtime="eager", isolated=False)
    if not torch.cuda.is_available():
        with pytest.raises(MissingDependency, match="no device cuda"):
            verify(child_of(known), known, device="cuda", isolated=False)


def test_a_file_that_does_not_know_its_parent_is_refused(tmp_path: Path) -> None:
    known = parent(tmp_path, samples=images(2))

    with pytest.raises(ParityError, match="model.fake was made from nothing know…, but .*slim.pt is "):
        verify(child_of(known, parent_sha256=None), known, isolated=False)
