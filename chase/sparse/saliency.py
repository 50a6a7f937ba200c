"""Initial masks by saliency: which weights of the whole network a training starts with (paper Table 3).

An entry of INITIAL computes on a copy: the model, its gradients, its running statistics and the global random
generators stay as they are, and the same input gives the same masks. Scores are compared in float32; equal ones go to
the earlier layer and the lower index. Add one with `INITIAL["mine"] = function`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from chase.errors import RecipeError, reason
from chase.registry import Registry
from chase.sparse.masks import maskable
from chase.sparse.select import keep_highest
from chase.sparse.update import prune

TEMPERATURE = 200.0
"""What GraSP divides the outputs by (Wang et al. 2020)."""
ROUNDS = 100
"""In how many rounds SynFlow prunes (Tanaka et al. 2020)."""

Tensors = Mapping[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """Images [b, ...] and labels [b] to measure a saliency on.

    `loss` maps outputs and labels to the mean loss over the images. The model sees at most `part` images at once, in
    parts of equal size (to one image); BatchNorm takes its statistics from each part.

    Raises:
        RecipeError: if images and labels differ in number, there are none, or `part` is not positive.
    """

    images: Tensor
    labels: Tensor
    loss: Loss = nn.functional.cross_entropy
    part: int = 128

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels) or not len(self.labels):
            raise RecipeError(f"a batch of {len(self.images)} images and {len(self.labels)} labels; pass a label each")
        if self.part < 1:
            raise RecipeError(f"batch part {self.part} is not positive; 128 images are usual")

    def parts(self, like: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Images of the dtype and device of `like`, their labels, and their share of the batch."""
        count = -(-len(self.labels) // self.part)
        for images, labels in zip(self.images.tensor_split(count), self.labels.tensor_split(count), strict=True):
            yield images.to(like), labels.to(like.device), len(labels) / len(self.labels)


class Initial(Protocol):
    """From a model to masks over `maskable(model)`, each like its weight, with exactly `keep` ones in all.

    `batch` is the data to learn from; an entry that needs none may need `example` [b, ...], one input of the model.

    Raises:
        RecipeError: if what it needs is missing, `keep` is out of range, or a score is not finite.
    """

    def __call__(
        self, model: nn.Module, keep: int, *, batch: Batch | None = None, example: Tensor | None = None
    ) -> dict[str, Tensor]: ...


def snip(
    model: nn.Module, keep: int, *, batch: Batch | None = None, example: Tensor | None = None
) -> dict[str, Tensor]:
    """The highest |w · ∂L/∂w| in training mode: what the loss feels of a weight (SNIP, Lee et al. 2019)."""
    _check_keep(model, keep)
    labelled = _required(batch, "snip")
    with _twin(model, "snip") as twin:
        weights = maskable(twin.train())
        gradient = _sum_of_gradients(_losses(twin, labelled), weights)
        scores = _products(weights, gradient)
    return _largest(model, scores, keep)


def grasp(
    model: nn.Module, keep: int, *, batch: Batch | None = None, example: Tensor | None = None
) -> dict[str, Tensor]:
    """What is left when the highest −w · Hg leave, whose removal raises ‖g‖² most (GraSP, Wang et al. 2020).

    g and H are the gradient and the Hessian of the loss over the maskable weights, in training mode, with outputs
    divided by TEMPERATURE. The batch should hold as many images of every class: see `class_balanced`.
    """
    _check_keep(model, keep)
    labelled = _required(batch, "grasp")
    with _twin(model, "grasp") as twin:
        weights = maskable(twin.train())
        gradient = _sum_of_gradients(_losses(twin, labelled, TEMPERATURE), weights)
        slopes = _slopes(_losses(twin, labelled, TEMPERATURE), weights, gradient)
        scores = _products(weights, _sum_of_gradients(slopes, weights))
    return _like(model, keep_highest(_finite(scores), keep))


def synflow(
    model: nn.Module, keep: int, *, batch: Batch | None = None, example: Tensor | None = None
) -> dict[str, Tensor]:
    """The highest |w| · ∂R/∂|w|, R the sum of outputs for an input of ones, in ROUNDS rounds (Tanaka et al. 2020).

    Every parameter counts with its absolute value, in evaluation mode; the density falls geometrically. Float64 holds
    the flow through deep networks. Without data: of `example`, else of the batch's images, only the shape is used.
    """
    _check_keep(model, keep)
    shown = example if example is not None else batch.images if batch is not None else None
    if shown is None:
        raise RecipeError("the initial masks of synflow need example=, one input of the model [1, ...], for its shape")
    masks = _everything(model)
    total = sum(mask.numel() for mask in masks.values())
    with _twin(model, "synflow", torch.float64) as twin:
        weights = maskable(_absolute_(twin.eval()))
        for done in range(1, ROUNDS + 1):
            scores = _flow(twin, weights, tuple(shown.shape[1:]))
            masks = dict(prune(masks, scores.__getitem__, round(total * (keep / total) ** (done / ROUNDS))))
            for name, weight in weights.items():
                weight.detach().mul_(masks[name])
    return _like(model, masks)


def magnitude(
    model: nn.Module, keep: int, *, batch: Batch | None = None, example: Tensor | None = None
) -> dict[str, Tensor]:
    """The highest |w| of the whole network, for a start from trained weights."""
    _check_keep(model, keep)
    return _largest(model, maskable(model), keep)


INITIAL: Registry[Initial] = Registry(
    "initial", {"snip": snip, "grasp": grasp, "synflow": synflow, "magnitude": magnitude}
)


def _check_keep(model: nn.Module, keep: int) -> None:
    total = sum(weight.numel() for weight in maskable(model).values())
    if not 1 <= keep <= total:
        raise RecipeError(f"keep {keep} is outside 1 to {total}, the maskable weights of {type(model).__name__}")


def _required(batch: Batch | None, name: str) -> Batch:
    if batch is None:
        raise RecipeError(
            f"the initial masks of {name} need batch=Batch(images, labels), labelled training images; "
            "`class_balanced` takes some of a split"
        )
    return batch


@contextmanager
def _twin(model: nn.Module, name: str, dtype: torch.dtype = torch.float32) -> Iterator[nn.Module]:
    """A copy in `dtype` or wider to measure on, of which only the maskable weights get gradients.

    Raises:
        RecipeError: if it cannot be run, or derived, as `name` needs it.
    """
    twin = copy.deepcopy(model).requires_grad_(False)
    weights = list(maskable(twin).values())
    twin.to(torch.promote_types(weights[0].dtype, dtype))
    for weight in weights:
        weight.requires_grad_(True)
    device = weights[0].device
    cuda = [device] if device.type == "cuda" else []
    try:
        # The other backends of attention have no second derivative.
        with torch.random.fork_rng(devices=cuda), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            yield twin
    except RuntimeError as error:
        raise RecipeError(
            f"{name} cannot be measured on {type(model).__name__} in {weights[0].dtype}: {reason(error)}; "
            "check its input, or choose other initial masks"
        ) from error


def _losses(model: nn.Module, batch: Batch, temperature: float = 1.0) -> Iterator[Tensor]:
    """The loss of each part times its share: they add up to the mean over the batch. Dropout repeats in every pass."""
    like = next(iter(maskable(model).values()))
    torch.default_generator.manual_seed(0)
    if like.is_cuda:
        with torch.cuda.device(like.device):
            torch.cuda.manual_seed(0)
    for images, labels, share in batch.parts(like):
        yield batch.loss(model(images) / temperature, labels) * share


def _sum_of_gradients(values: Iterable[Tensor], weights: Tensors) -> dict[str, Tensor]:
    """The gradient of Σ values, one value at a time; 0 for a weight that takes no part."""
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for value in values:
        for summed, part in zip(total.values(), _gradients(value, weights), strict=True):
            summed += part
    return total


def _gradients(value: Tensor, weights: Tensors, *, create_graph: bool = False) -> tuple[Tensor, ...]:
    inputs = list(weights.values())
    return torch.autograd.grad(value, inputs, create_graph=create_graph, allow_unused=True, materialize_grads=True)


def _slopes(losses: Iterable[Tensor], weights: Tensors, direction: Tensors) -> Iterator[Tensor]:
    """⟨∇L, direction⟩ of each loss: its gradient is H · direction."""
    for loss in losses:
        gradients = _gradients(loss, weights, create_graph=True)
        pairs = zip(gradients, direction.values(), strict=True)
        yield torch.stack([(gradient * along).sum() for gradient, along in pairs]).sum()


@torch.no_grad()
def _absolute_(model: nn.Module) -> nn.Module:
    """The model with the absolute values of its parameters; running means become 0, since flow never subtracts."""
    for parameter in model.parameters():
        parameter.abs_()
    for name, buffer in model.named_buffers():
        if name.rpartition(".")[2] == "running_mean":
            buffer.zero_()
    return model


def _flow(model: nn.Module, weights: Tensors, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """w · ∂R/∂w, scaled to at most 1: float32 could not hold the flow of a deep network."""
    like = next(iter(weights.values()))
    flow = model(torch.ones(1, *shape, dtype=like.dtype, device=like.device)).sum()
    scores = _finite(_products(weights, _sum_of_gradients([flow], weights)))
    top = max(float(score.abs().max()) for score in scores.values())
    return {name: (score / (top or 1.0)).float() for name, score in scores.items()}


def _products(weights: Tensors, others: Tensors) -> dict[str, Tensor]:
    return {name: weight.detach() * others[name] for name, weight in weights.items()}


def _finite(scores: Tensors) -> dict[str, Tensor]:
    """The scores; NaN or infinity would choose weights by their position alone."""
    for name, score in scores.items():
        if not bool(torch.stack(score.aminmax()).isfinite().all()):
            raise RecipeError(f"the saliency of {name} is not finite; check the model's weights and the batch")
    return dict(scores)


def _everything(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in maskable(model).items()}


def _largest(model: nn.Module, scores: Tensors, keep: int) -> dict[str, Tensor]:
    return _like(model, dict(prune(_everything(model), _finite(scores).__getitem__, keep)))


def _like(model: nn.Module, kept: Tensors) -> dict[str, Tensor]:
    """The masks as floats in the dtype and layout of each weight."""
    weights = maskable(model)
    return {name: torch.empty_like(weight, requires_grad=False).copy_(kept[name]) for name, weight in weights.items()}
