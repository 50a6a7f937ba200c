"""Parity: does the written file answer as its network does?"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from chase.errors import ParityError, RecipeError
from chase.runtimes import Runtime
from chase.runtimes.base import reason

# The largest relative difference, max|artifact - network| / max|network|. Change it only with evidence.
TOLERANCES = {
    ("torchscript", "fp32"): 1e-6,
    ("onnx", "fp32"): 1e-5,
}
TOLERANCE_WITH_ATTENTION = 1e-4  # in ONNX: softmax, GELU and layer norm are computed by other formulas
# Two fp32 programs for one network differ by up to about 2.5 times its own distance from float64 (measured on
# seven torchvision networks with BatchNorm folded: 1.2 to 2.4), whatever the table says.
ROUNDINGS = 4.0

_CHUNK = 32


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an artifact is from its network.

    `max_abs` is the largest difference of any logit and `max_rel` the same relative to the network's largest
    logit, which was held to `tolerance`; `agreement` is the share of samples with the same top-1 answer, in
    percent.
    """

    max_abs: float
    max_rel: float
    agreement: float
    samples: int
    tolerance: float | None = None


def tolerance_for(model: nn.Module, samples: Tensor, *, format: str, precision: str) -> float:
    """The table's bound for a format, or a few times the network's own rounding where that is larger."""
    bound = TOLERANCES.get((format, precision), 0.0)
    if format == "onnx" and any("Attention" in type(module).__name__ for module in model.modules()):
        bound = TOLERANCE_WITH_ATTENTION
    return max(bound, ROUNDINGS * rounding(model, samples))


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


def check_parity(model: nn.Module, runtime: Runtime, samples: Tensor, *, tolerance: float, name: str) -> Parity:
    """The parity of a runtime with its fp32 network on samples [n, c, h, w] and at a second batch size.

    Raises:
        ParityError: if they differ by more than `tolerance`, if the runtime fails on one of the batch sizes,
            or if the network's answers are such that nothing can be compared.
    """
    parity = compare(reference(model, samples), _answers(runtime, samples, name), name=name)
    few = _another_batch_size(samples)
    again = compare(reference(model, few), _answers(runtime, few, name), name=name)
    worst = again if again.max_rel > parity.max_rel else parity
    for found in (parity, again):
        if not found.max_rel <= tolerance:  # so that NaN fails
            far = f"{found.max_rel:.2e} relative ({found.max_abs:.2e} absolute)"
            bound = f"the tolerance is {tolerance:.1e}"
            raise ParityError(f"{name} differs from its network by {far}; {bound}, so it was not kept")
    return replace(parity, max_abs=worst.max_abs, max_rel=worst.max_rel, tolerance=tolerance)


def compare(expected: Tensor, actual: Tensor, *, name: str) -> Parity:
    """How far `actual` is from `expected`, both [n, classes].

    Raises:
        ParityError: if their shapes differ, or if `expected` is zero everywhere or not finite.
    """
    if actual.shape != expected.shape:
        shapes = f"{list(actual.shape)}, its network with {list(expected.shape)}"
        raise ParityError(f"{name} answers with {shapes}; it was not kept")
    largest = float(expected.abs().max())
    if not 0 < largest < math.inf:
        problem = "zero" if largest == 0 else "not finite"
        raise ParityError(f"{name} cannot be verified: its network's answers are {problem}; train it first")
    max_abs = float((actual - expected).abs().max())
    same = (actual.argmax(1) == expected.argmax(1)).double().mean()
    return Parity(
        max_abs=max_abs,
        max_rel=max_abs / largest,
        agreement=100 * float(same),
        samples=len(expected),
    )


def _another_batch_size(samples: Tensor) -> Tensor:
    """Three of the samples, or two if there are three anyway."""
    return torch.cat([samples] * 3)[: 2 if len(samples) == 3 else 3]


def _answers(runtime: Runtime, samples: Tensor, name: str) -> Tensor:
    try:
        return torch.cat([runtime.run(chunk.to(runtime.device)) for chunk in torch.split(samples, _CHUNK)]).cpu()
    except (RuntimeError, RecipeError) as error:
        size = min(len(samples), _CHUNK)
        raise ParityError(f"{name} cannot run a batch of {size} ({reason(error)}); it was not kept") from error
