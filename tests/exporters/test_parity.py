from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chase.errors import ParityError
from chase.exporters.parity import GATES, Gate, Parity, compare, gate_for, reference, rounding, signal_to_noise


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)).eval()


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def parity(**fields: Any) -> Parity:
    whole = {"max_abs": 0.0, "max_rel": 0.0, "snr_db": 100.0, "agreement": 100.0, "flipped": 0, "samples": 400}
    return Parity(**(whole | fields))


def test_differences_are_those_of_a_table() -> None:
    expected = torch.tensor([[1.0, -4.0], [0.0, 2.0]])
    actual = torch.tensor([[1.0, -3.5], [2.5, 2.0]])

    found = compare(expected, actual, name="file")

    assert (found.max_abs, found.max_rel, found.agreement, found.flipped, found.samples) == (2.5, 2.5 / 4, 50, 1, 2)
    assert found.snr_db == pytest.approx(10 * math.log10(21 / 6.5))


def test_equal_answers_have_no_noise() -> None:
    assert signal_to_noise(torch.ones(2, 3), torch.ones(2, 3)) is None
    assert signal_to_noise(torch.ones(2, 3), torch.full((2, 3), math.nan)) == -math.inf
    assert signal_to_noise(torch.full((1, 4), 10.0), torch.full((1, 4), 11.0)) == pytest.approx(20)


@pytest.mark.parametrize(
    ("gate", "found", "why"),
    [
        (Gate(max_rel=1e-5), parity(max_rel=1e-5), None),
        (
            Gate(max_rel=1e-5),
            parity(max_rel=2e-5, max_abs=3e-4),
            r"2.00e-05 relative \(3.00e-04 absolute\); .* 1.0e-05",
        ),
        (Gate(max_rel=1e-5), parity(max_rel=math.nan), "differs from its network by nan"),
        (Gate(snr_db=40), parity(snr_db=None), None),
        (Gate(snr_db=40), parity(snr_db=40.0), None),
        (Gate(snr_db=40), parity(snr_db=39.9), "ratio of 39.9 dB to its network; 40 dB is needed"),
        (Gate(snr_db=40), parity(snr_db=-math.inf), "answers with values that are not finite"),
        (Gate(agreement=99.5), parity(agreement=99.5, flipped=2), None),
        (Gate(agreement=99.5), parity(agreement=93.75, flipped=1, samples=16), None),
        (Gate(agreement=99.5), parity(agreement=99.25, flipped=3), "agrees with its network on 99.2 % of 400 samples"),
    ],
)
def test_a_gate_says_why_it_is_not_met(gate: Gate, found: Parity, why: str | None) -> None:
    told = gate.failure(found)

    assert (told is None) == (why is None)
    if why is not None:
        assert re.search(why, told or "")


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


def test_the_gate_of_fp32_is_the_tables_or_a_few_roundings() -> None:
    class SelfAttention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    def bound(model: nn.Module, format: str, on_gpu: bool = False) -> float | None:
        return gate_for(model, samples, format=format, precision="fp32", on_gpu=on_gpu).max_rel

    samples, attending = images(4), nn.Sequential(SelfAttention(), tiny())

    assert 0 < rounding(tiny(), samples) < 1e-6
    assert bound(tiny(), "onnx") == bound(tiny(), "openvino") == 1e-5
    assert bound(attending, "onnx") == bound(tiny(), "onnx", on_gpu=True) == 1e-4
    assert bound(attending, "torchscript") == max(1e-6, 4 * rounding(tiny(), samples))
    assert gate_for(tiny(), samples, format="onnx", precision="fp16") == GATES["fp16"]
    assert reference(tiny(), samples).dtype == torch.float32


def test_a_network_without_float64_has_no_rounding() -> None:
    class Single(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.linear(x.flatten(1), torch.ones(2, 48))

    assert rounding(Single(), images(2)) == 0
    assert rounding(nn.Sequential(nn.Flatten(), nn.Threshold(9.0, 0.0)), images(2)) == 0
