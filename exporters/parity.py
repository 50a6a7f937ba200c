"""Parity: does the written file answer as its network does?"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from chase.errors import ParityError

# The largest relative difference, max|artifact - network| / max|network|, of fp32. Change it only with evidence.
TOLERANCES = {"torchscript": 1e-6, "onnx": 1e-5}
TOLERANCE = 1e-5  # of every other format
TOLERANCE_WITH_ATTENTION = 1e-4  # softmax, GELU and layer norm are computed by other formulas
TOLERANCE_ON_GPU = 1e-4  # with TF32 off
# Two fp32 programs for one network differ by up to about 2.5 times its own distance from float64 (measured on
# seven torchvision networks with BatchNorm folded: 1.2 to 2.4), whatever the table says.
ROUNDINGS = 4.0

_CHUNK = 32


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an artifact is from its network.

    `max_abs` is the largest difference of any logit and `max_rel` the same relative to the network's largest logit;
    `snr_db` is the power of the network's logits over that of the difference, in decibels (None: they are equal);
    `flipped` of the `samples` have another top-1 answer, so `agreement` percent have the same.
    """

    max_abs: float
    max_rel: float
    snr_db: float | None
    agreement: float
    flipped: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What an artifact is held to: `max_rel` at most, `snr_db` and `agreement` (in percent) at least."""

    max_rel: float | None = None
    snr_db: float | None = None
    agreement: float | None = None

    def failure(self, parity: Parity) -> str | None:
        """Why `parity` is not enough, or None. One flipped sample is always allowed: it may be a tie."""
        if self.max_rel is not None and not parity.max_rel <= self.max_rel:  # so that NaN fails
            far = f"{parity.max_rel:.2e} relative ({parity.max_abs:.2e} absolute)"
            return f"differs from its network by {far}; the tolerance is {self.max_rel:.1e}"
        if parity.snr_db == -math.inf:
            return "answers with values that are not finite"
        if self.snr_db is not None and parity.snr_db is not None and not parity.snr_db >= self.snr_db:
            return f"has a signal-to-noise ratio of {parity.snr_db:.1f} dB to its network; {self.snr_db:g} dB is needed"
        if self.agreement is not None and parity.agreement < self.agreement and parity.flipped > 1:
            share = f"{parity.agreement:.1f} % of {parity.samples} samples"
            return f"agrees with its network on {share}; {self.agreement:g} % is needed"
        return None


GATES = {
    "fp16": Gate(snr_db=40, agreement=99.5),
    "bf16": Gate(snr_db=30, agreement=99.5),
    "int8": Gate(snr_db=20, agreement=98),
    "int8-fp16": Gate(snr_db=20, agreement=98),
    "fp8": Gate(snr_db=20, agreement=98),
}
"""Of the reduced precisions."""


def gate_for(model: nn.Module, samples: Tensor, *, format: str, precision: str, on_gpu: bool = False) -> Gate:
    """What a file is held to: for fp32 the table's bound, or a few times the network's own rounding if that is more."""
    if precision != "fp32":
        return GATES[precision]
    bound = TOLERANCES.get(format, TOLERANCE)
    if format != "torchscript" and any(_attends(module) for module in model.modules()):
        bound = TOLERANCE_WITH_ATTENTION
    if on_gpu:
        bound = TOLERANCE_ON_GPU
    return Gate(max_rel=max(bound, ROUNDINGS * rounding(model, samples)))


def _attends(module: nn.Module) -> bool:
    """Whether a module is a kind of attention, or a program that holds it as an operator."""
    steps = getattr(module, "steps", ())
    return "Attention" in type(module).__name__ or any("attention" in str(step[0]) for step in steps)


def rounding(model: nn.Module, samples: Tensor) -> float:
    """The relative distance of the fp32 network from itself in float64, on samples [n, c, h, w].

    It is 0 where it cannot be had: the network's code allows no float64, or its answers are 0 or not finite.
    """
    try:
        exact = reference(copy.deepcopy(model).double(), samples.double())
    except (RuntimeError, TypeError):
        return 0.0
    distance = float((reference(model, samples) - exact).abs().max() / exact.abs().max())
    return distance if math.isfinite(distance) else 0.0


def reference(model: nn.Module, samples: Tensor) -> Tensor:
    """The network's own answers [n, classes], chunk by chunk."""
    with torch.inference_mode():
        return torch.cat([model(chunk) for chunk in torch.split(samples, _CHUNK)])


def compare(expected: Tensor, actual: Tensor, *, name: str) -> Parity:
    """How far `actual` is from `expected`, both [n, classes].

    Raises:
        ParityError: if their shapes differ, or if `expected` is zero everywhere or not finite.
    """
    if actual.shape != expected.shape:
        raise ParityError(f"{name} answers with {list(actual.shape)}, its network with {list(expected.shape)}")
    largest = float(expected.abs().max())
    if not 0 < largest < math.inf:
        problem = "zero" if largest == 0 else "not finite"
        raise ParityError(f"{name} cannot be verified: its network's answers are {problem}; train it first")
    expected, actual = expected.double(), actual.double()
    max_abs = float((actual - expected).abs().max())
    flipped = int((actual.argmax(1) != expected.argmax(1)).sum())
    return Parity(
        max_abs=max_abs,
        max_rel=max_abs / largest,
        snr_db=signal_to_noise(expected, actual),
        agreement=100 * (1 - flipped / len(expected)),
        flipped=flipped,
        samples=len(expected),
    )


def signal_to_noise(expected: Tensor, actual: Tensor) -> float | None:
    """10 log10 of the power of `expected` over the power of the difference, in dB; None where there is none.

    What is constant over the samples carries no answer, but is part of the signal: it is what a runtime must compute.
    """
    noise = float((actual - expected).square().sum())
    if noise == 0:
        return None
    return 10 * math.log10(float(expected.square().sum()) / noise) if math.isfinite(noise) else -math.inf
