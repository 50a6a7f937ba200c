from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chase.errors import ParityError, RecipeError
from chase.exporters.parity import check_parity, compare, reference, rounding, tolerance_for
from chase.runtimes import open_runtime


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)).eval()


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def check(written: nn.Module, samples: Tensor, tolerance: float = 1e-6) -> Any:
    with open_runtime(written) as runtime:
        return check_parity(tiny(), runtime, samples, tolerance=tolerance, name="file")


def test_differences_are_those_of_a_table() -> None:
    expected = torch.tensor([[1.0, -4.0], [0.0, 2.0]])
    actual = torch.tensor([[1.0, -3.5], [2.5, 2.0]])

    found = compare(expected, actual, name="file")

    assert (found.max_abs, found.max_rel, found.agreement, found.samples) == (2.5, 2.5 / 4, 50, 2)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_the_same_network_has_parity_at_any_number_of_samples(count: int) -> None:
    found = check(tiny(), images(count))

    assert found.max_rel <= 1e-6
    assert (found.agreement, found.samples, found.tolerance) == (100, count, 1e-6)


def test_a_swapped_channel_is_caught() -> None:
    swapped: Any = tiny()
    swapped[0].weight.data = swapped[0].weight.data[[1, 0, 2, 3]]

    with pytest.raises(ParityError, match=r"file differs from its network by .* the tolerance is 1.0e-06"):
        check(swapped, images(8))


def test_a_slightly_wrong_weight_is_caught() -> None:
    wrong: Any = tiny()
    wrong[3].weight.data[2, 7] += 1e-3

    with pytest.raises(ParityError, match="differs from its network"):
        check(wrong, images(8))


def test_a_network_that_holds_for_one_batch_size_alone_is_caught() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny()

        def forward(self, x: Tensor) -> Tensor:
            if len(x) != 8:
                raise RuntimeError("only 8")
            out: Tensor = self.inner(x)
            return out

    class Wrong(Fixed):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x)
            return out if len(x) == 8 else out * 1.01

    with pytest.raises(ParityError, match=r"file cannot run a batch of 3 \(only 8\)"):
        check(Fixed(), images(8))
    with pytest.raises(ParityError, match="differs"):
        check(Wrong(), images(8))


def test_answers_that_are_not_numbers_are_caught() -> None:
    broken: Any = tiny()
    broken[3].bias.data[0] = float("nan")

    with pytest.raises(ParityError, match="differs from its network by nan"):
        check(broken, images(2))


@pytest.mark.parametrize(
    ("expected", "actual", "message"),
    [
        (torch.ones(2, 3), torch.ones(2, 4), r"answers with \[2, 4\], its network with \[2, 3\]"),
        (torch.zeros(2, 3), torch.zeros(2, 3), "its network's answers are zero"),
        (torch.full((2, 3), float("inf")), torch.ones(2, 3), "its network's answers are not finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(expected: Tensor, actual: Tensor, message: str) -> None:
    with pytest.raises(ParityError, match=message):
        compare(expected, actual, name="file")


def test_a_runtimes_refusal_is_a_failed_parity() -> None:
    class Refusing:
        device = torch.device("cpu")

        def run(self, x: Tensor) -> Tensor:
            raise RecipeError("no such shape")

    runtime: Any = Refusing()
    with pytest.raises(ParityError, match=r"cannot run a batch of 2 \(no such shape\)"):
        check_parity(tiny(), runtime, images(2), tolerance=1.0, name="file")


def test_the_tolerance_is_the_tables_or_a_few_roundings() -> None:
    class SelfAttention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    model, samples = tiny(), images(4)
    attending = nn.Sequential(SelfAttention(), tiny())

    assert 0 < rounding(model, samples) < 1e-6
    assert tolerance_for(model, samples, format="onnx", precision="fp32") == 1e-5
    assert tolerance_for(attending, samples, format="onnx", precision="fp32") == 1e-4
    assert tolerance_for(model, samples, format="other", precision="fp32") == 4 * rounding(model, samples)
    assert reference(model, samples).dtype == torch.float32


def test_a_network_without_float64_has_no_rounding() -> None:
    class Single(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.linear(x.flatten(1), torch.ones(2, 48))

    assert rounding(Single(), images(2)) == 0
    assert rounding(nn.Sequential(nn.Flatten(), nn.Threshold(9.0, 0.0)), images(2)) == 0
