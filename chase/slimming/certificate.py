"""The certificate of a slim network: it computes what the masked one computes, measured in float64."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from chase.errors import EquivalenceError, reason
from chase.slimming.surgery import replaced, tensors_of
from chase.tracing import Example, arguments, evaluating

TOLERANCE = 1e-10
"""Largest relative error of slim against masked, both in float64."""
TOLERANCE_FLOAT32 = 1e-4
"""The same for a model whose forward pass fixes float32; real faults are larger than 0.01."""


def certify(
    masked: nn.Module,
    small: nn.Module,
    *,
    example: Example,
    samples: Tensor | None = None,
    exact: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """The relative error max|Δ| / max|y| of slim against masked, over all outputs, as a dictionary.

    Measured in float64 on random inputs of two batch sizes, on random inputs of another size where the masked model
    takes one, and on real inputs [n, ...]. A model whose forward pass does not run in float64 is measured in float32
    against a wider tolerance, and the certificate says so. `exact` are values of `small` before they were rounded.

    Raises:
        EquivalenceError: if it exceeds the tolerance or is not finite.
    """
    dtype, theirs = torch.float64, _exact(masked, torch.float64)
    if not _runs(theirs, arguments(example, batch=1), dtype):
        dtype, theirs = torch.float32, _exact(masked, torch.float32)
    tolerance = TOLERANCE if dtype == torch.float64 else TOLERANCE_FLOAT32
    ours = _exact(small, dtype, exact or {})
    errors: dict[str, float] = {}
    counts: dict[str, int] = {}
    for kind, inputs in _inputs(example, samples):
        try:
            reference = _outputs(theirs, inputs, dtype)
        except Exception as error:  # whatever the user's forward raises on a size that is not its own
            if kind == "other_size":
                continue
            raise EquivalenceError(f"the masked network does not run on its own example: {reason(error)}") from error
        found = _relative_error(reference, _slim_outputs(ours, inputs, dtype))
        errors[kind] = _worst([errors.get(kind, 0.0), found])
        counts[kind] = counts.get(kind, 0) + _batch(inputs)
    worst = _worst(errors.values())
    if not all(error <= tolerance for error in errors.values()):  # one that is not a number fails as well
        raise EquivalenceError(
            f"the slim network differs from the masked one by {worst:.2e} relative "
            f"(allowed: {tolerance:.0e}); nothing was written. Report the model's architecture"
        )
    return {
        "max_rel": worst,
        "tolerance": tolerance,
        "dtype": str(dtype).removeprefix("torch."),
        "errors": errors,
        "samples": counts,
    }


def _inputs(example: Example, samples: Tensor | None) -> Iterator[tuple[str, tuple[Any, ...]]]:
    generator = torch.Generator().manual_seed(0)
    for batch in (1, 2):
        yield "random", _random(arguments(example, batch=batch), generator)
    if isinstance(example, Tensor) and example.ndim >= 3:
        sides = [side + 32 if side >= 32 else side + 4 for side in example.shape[2:]]
        yield "other_size", (torch.randn(1, example.shape[1], *sides, generator=generator),)
    if samples is not None:
        for part in (samples[:1], samples[1:]):
            if len(part):
                yield "real", (part,)


def _random(inputs: tuple[Any, ...], generator: torch.Generator) -> tuple[Any, ...]:
    """Floats are drawn anew; anything else (token numbers, masks) stays."""

    def draw(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator) if x.is_floating_point() else x.cpu()

    drawn: tuple[Any, ...] = pytree.tree_map_only(Tensor, draw, inputs)
    return drawn


def in_precision(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of a tensor on the CPU, in a precision if it is floating-point."""
    return tensor.to("cpu", dtype if tensor.is_floating_point() else tensor.dtype, copy=True)


def _exact(model: nn.Module, dtype: torch.dtype, values: Mapping[str, Tensor] = MappingProxyType({})) -> nn.Module:
    """The model on the CPU in a precision, with some other values: a copy, unless it is all that already."""
    floats = [tensor for tensor in tensors_of(model).values() if tensor.is_floating_point()]
    if not values and all(tensor.dtype == dtype and tensor.device.type == "cpu" for tensor in floats):
        return model
    return replaced(model, lambda name, tensor: in_precision(values.get(name, tensor), dtype))


@torch.no_grad()
def _outputs(model: nn.Module, inputs: tuple[Any, ...], dtype: torch.dtype) -> list[Tensor]:
    def prepared(x: Tensor) -> Tensor:
        return x.cpu().to(dtype) if x.is_floating_point() else x.cpu()

    with evaluating(model) as exact:
        leaves = pytree.tree_leaves(exact(*pytree.tree_map_only(Tensor, prepared, inputs)))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _slim_outputs(model: nn.Module, inputs: tuple[Any, ...], dtype: torch.dtype) -> list[Tensor]:
    try:
        return _outputs(model, inputs, dtype)
    except Exception as error:  # the forward pass says x.view(-1, 1024)
        raise EquivalenceError(
            "slim and masked cannot be compared; the model's forward pass may fix a size: " + reason(error)
        ) from error


def _runs(model: nn.Module, inputs: tuple[Any, ...], dtype: torch.dtype) -> bool:
    try:
        _outputs(model, inputs, dtype)
    except (RuntimeError, TypeError, ValueError):
        return False
    return True


def _relative_error(reference: list[Tensor], ours: list[Tensor]) -> float:
    """max|Δ| / max|y| over all outputs, the worst of them; not a number where shapes differ."""
    if [x.shape for x in reference] != [x.shape for x in ours]:
        return float("nan")
    return _worst(
        float((x - y).abs().max() / x.abs().max().clamp(min=1e-300))
        for x, y in zip(reference, ours, strict=True)
        if x.is_floating_point()
    )


def _worst(errors: Iterable[float]) -> float:
    """The largest, or not a number where one of them is not, which `max` may overlook."""
    return float(torch.tensor([*errors], dtype=torch.float64).max())


def _batch(inputs: tuple[Any, ...]) -> int:
    return next((len(x) for x in pytree.tree_leaves(inputs) if isinstance(x, Tensor)), 0)
