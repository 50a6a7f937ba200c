"""In what form masks cost least: the same gradients masked in every way that torch offers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from chase.benchmarks.timing import Runner

Tensors = tuple[Tensor, ...] | list[Tensor]


def float_foreach(gradients: Tensors, masks: Tensors) -> Runner:
    """Multiply by float masks, all layers in one call: what the Sparsifier does."""
    return lambda: torch._foreach_mul_(gradients, masks)


def float_loop(gradients: Tensors, masks: Tensors) -> Runner:
    """Multiply by float masks, layer by layer."""
    return lambda: [gradient.mul_(mask) for gradient, mask in zip(gradients, masks, strict=True)]


def bool_foreach(gradients: Tensors, masks: Tensors) -> Runner:
    """Multiply by masks of a quarter of the size, which are converted on the way."""
    small = [mask.bool() for mask in masks]
    return lambda: torch._foreach_mul_(gradients, small)


def masked_fill(gradients: Tensors, masks: Tensors) -> Runner:
    """Fill where a mask of bool says so, layer by layer."""
    gone = [mask == 0 for mask in masks]
    return lambda: [gradient.masked_fill_(mask, 0) for gradient, mask in zip(gradients, gone, strict=True)]


def bitwise_and(gradients: Tensors, masks: Tensors) -> Runner:
    """Keep all or none of the bits, layer by layer."""
    bits = [mask.int().neg_() for mask in masks]
    views = [gradient.view(torch.int32) for gradient in gradients]
    return lambda: [view.bitwise_and_(mask) for view, mask in zip(views, bits, strict=True)]


def zeroing(gradients: Tensors, masks: Tensors) -> Runner:
    """No masking: the least that writing every gradient can cost."""
    return lambda: torch._foreach_zero_(gradients)


FORMS: dict[str, Callable[[Tensors, Tensors], Runner]] = {
    "float_foreach": float_foreach,
    "float_loop": float_loop,
    "bool_foreach": bool_foreach,
    "masked_fill": masked_fill,
    "bitwise_and": bitwise_and,
    "zeroing": zeroing,
}


def forms_of(gradients: Tensors, masks: Tensors) -> dict[str, Runner]:
    """Every form, ready to be timed: float32 gradients, and masks of 0 and 1 of the same shapes.

    Each works on copies of its own; from the second call on, they multiply what is masked already.
    """
    return {name: form([each.clone() for each in gradients], masks) for name, form in FORMS.items()}
