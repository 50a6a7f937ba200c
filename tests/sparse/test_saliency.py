"""Initial masks: the right weights by order (not only the right number), and a model that nobody touched."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from small_training import SMALL_MODELS, ResidualNet, batch, seeded, small_mlp
from torch import Tensor, nn

from chase.data import class_balanced, load_data
from chase.errors import RecipeError, UnknownName
from chase.models import build
from chase.models.vgg import VGG, VGG19
from chase.sparse.masks import maskable
from chase.sparse.saliency import INITIAL, Batch, grasp, magnitude, snip, synflow
from chase.sparse.update import NewMasks, prune

Tensors = Mapping[str, Tensor]
BATCH = Batch(*batch(0, size=12))


def total(model: nn.Module) -> int:
    return sum(weight.numel() for weight in maskable(model).values())


def ones(masks: Tensors) -> int:
    assert all(bool(((mask == 0) | (mask == 1)).all()) for mask in masks.values())
    return sum(int(mask.sum()) for mask in masks.values())


def in_order(masks: Tensors, scores: Tensors, tolerance: float = 0.0) -> bool:
    """Whether no removed weight has a higher score than a kept one, by more than `tolerance` of the highest."""
    assert masks.keys() == scores.keys()
    kept = torch.cat([scores[name][masks[name] == 1] for name in masks]).double()
    gone = torch.cat([scores[name][masks[name] == 0] for name in masks]).double()
    return bool(kept.min() >= gone.max() - tolerance * torch.cat([kept, gone]).abs().max())


def inverted(masks: Tensors) -> dict[str, Tensor]:
    return {name: 1 - mask for name, mask in masks.items()}


def sensitivities(model: nn.Module, data: Batch) -> dict[str, Tensor]:
    """|∂L/∂m| of multiplicative masks m, all 1: SNIP's own definition."""
    model = copy.deepcopy(model).train()
    masks = {name: torch.ones_like(weight, requires_grad=True) for name, weight in maskable(model).items()}
    weights = {name: weight * masks[name] for name, weight in maskable(model).items()}
    loss = data.loss(torch.func.functional_call(model, weights, (data.images,)), data.labels)
    gradients = torch.autograd.grad(loss, list(masks.values()))
    return {name: gradient.abs() for name, gradient in zip(masks, gradients, strict=True)}


@pytest.mark.parametrize("name", sorted(SMALL_MODELS))
@pytest.mark.parametrize("density", [0.9, 0.5, 0.1, 0.02])
def test_snip_keeps_the_connections_whose_mask_the_loss_feels_most(name: str, density: float) -> None:
    model = seeded(SMALL_MODELS[name]).eval()  # the score is of training mode all the same

    masks = snip(model, round(density * total(model)), batch=BATCH)

    sensitivity = sensitivities(model, BATCH)
    assert ones(masks) == round(density * total(model))
    assert in_order(masks, sensitivity, 1e-6)
    assert not in_order(inverted(masks), sensitivity, 1e-6)


def test_snip_removes_weights_without_a_gradient_first() -> None:
    model = seeded(small_mlp)
    with torch.no_grad():
        model.get_parameter("1.bias")[
            3
        ] = -1e6  # this unit never fires: nothing reaches its weights, or those that read it
        model.get_parameter("1.weight")[3] = 50.0

    masks = snip(model, 1000, batch=BATCH)

    assert not masks["1.weight"][3].any()
    assert not masks["3.weight"][:, 3].any()
    assert magnitude(model, 108)["1.weight"][3].all()  # to magnitude they were the best


def grasp_by_differences(model: nn.Module, data: Batch, temperature: float = 200.0, eps: float = 1e-3) -> Tensors:
    """−w · Hg in float64, where H g = (∇L(w + εg) − ∇L(w − εg)) / 2ε."""
    model = copy.deepcopy(model).double().train()
    weights = maskable(model)

    def gradient(step: float = 0.0, along: Tensors | None = None) -> dict[str, Tensor]:
        moved = {n: w.detach() + (step * along[n] if along else 0) for n, w in weights.items()}
        moved = {n: w.requires_grad_() for n, w in moved.items()}
        outputs = torch.func.functional_call(model, moved, (data.images.double(),))
        loss = data.loss(outputs / temperature, data.labels)
        return dict(zip(moved, torch.autograd.grad(loss, list(moved.values())), strict=True))

    g = gradient()
    above, below = gradient(eps, g), gradient(-eps, g)
    return {n: -w.detach() * (above[n] - below[n]) / (2 * eps) for n, w in weights.items()}


def tanh_net() -> nn.Sequential:
    """Logits [n, 5] of images [n, 3, 6, 6], smooth: its Hessian can be had by differences."""
    convolution, norm = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)
    return nn.Sequential(convolution, norm, nn.Tanh(), nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 5))


@pytest.mark.parametrize("density", [0.9, 0.5, 0.1])
def test_grasp_removes_the_highest_negative_product_with_the_hessian(density: float) -> None:
    model = seeded(tanh_net).eval()
    keep = round(density * total(model))

    masks = grasp(model, keep, batch=BATCH)

    score = grasp_by_differences(model, BATCH)
    lowest_first = {name: -value for name, value in score.items()}
    assert ones(masks) == keep
    assert in_order(masks, lowest_first, 1e-5)
    assert not in_order(inverted(masks), lowest_first, 1e-5)
    assert not in_order(masks, {name: value.abs() for name, value in score.items()}, 1e-5)  # signs count
    assert any((value > 0).any() for value in score.values())


def linear_chain(*widths: int) -> nn.Sequential:
    """Linear layers without biases between `widths`, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    layers = [nn.Linear(a, b, bias=False) for a, b in zip(widths, widths[1:], strict=False)]
    for layer in layers:
        nn.init.normal_(layer.weight, generator=generator)
    return nn.Sequential(*layers)


def paths(model: nn.Sequential) -> dict[str, Tensor]:
    """Of each weight of a linear chain, the sum over the paths through it of the product of absolute weights."""
    weights = [weight.detach().double().abs() for weight in model.parameters()]
    into = [torch.ones(weights[0].shape[1], dtype=torch.float64)]
    for weight in weights:
        into.append(weight @ into[-1])
    out = [torch.ones(weights[-1].shape[0], dtype=torch.float64)]
    for weight in reversed(weights):
        out.append(out[-1] @ weight)
    around = zip(weights, into, reversed(out[:-1]), strict=False)
    return {f"{i}.weight": after[:, None] * weight * before for i, (weight, before, after) in enumerate(around)}


def test_one_round_of_synflow_ranks_by_the_paths_through_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chase.sparse.saliency.ROUNDS", 1)
    model = linear_chain(7, 9, 5, 4)
    scores = paths(model)

    for keep in (1, 20, 64, total(model) - 1):
        masks = synflow(model, keep, example=torch.zeros(1, 7))
        assert ones(masks) == keep
        assert in_order(masks, scores, 1e-6)
        assert not in_order(inverted(masks), scores, 1e-6)


def test_the_rounds_of_synflow_rank_by_the_paths_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chase.sparse.saliency.ROUNDS", 4)
    model = linear_chain(7, 9, 5, 4)
    pruned, living = copy.deepcopy(model), torch.ones(total(model), dtype=torch.bool)
    for counted in (91, 65, 46, 33):  # 128 · (33 / 128)^(k / 4), rounded
        scores = torch.cat([score.flatten() for score in paths(pruned).values()])
        living[scores.argsort(descending=True, stable=True)[counted:]] = False
        parts = living.split([weight.numel() for weight in pruned.parameters()])
        with torch.no_grad():
            for weight, part in zip(pruned.parameters(), parts, strict=True):
                weight.mul_(part.view_as(weight))

    masks = synflow(model, 33, example=torch.zeros(1, 7))

    assert torch.equal(torch.cat([mask.flatten() for mask in masks.values()]).bool(), living)


@pytest.mark.parametrize("depth", [2, 5])
def test_synaptic_flow_is_conserved_from_layer_to_layer(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Tensor]] = []

    def spy(masks: Tensors, score_of: Callable[[str], Tensor], keep: int) -> NewMasks:
        seen.append({name: score_of(name) for name in masks})
        return prune(masks, score_of, keep)

    monkeypatch.setattr("chase.sparse.saliency.prune", spy)
    layers = [layer for linear in linear_chain(6, *[10] * depth, 3) for layer in (linear, nn.ReLU())]
    model = nn.Sequential(*layers[:-1])

    synflow(model, total(model) // 20, example=torch.zeros(1, 6))

    assert len(seen) == 100
    for scores in seen:
        sums = [float(score.sum()) for score in scores.values()]
        assert sums == pytest.approx([sums[0]] * (depth + 1), rel=1e-6)


def narrow_vgg19() -> VGG:
    """VGG-19 with an eighth of the channels."""
    return VGG(tuple(step if isinstance(step, str) else step // 8 for step in VGG19), num_classes=10)


def empty_layers(masks: Tensors) -> int:
    return sum(not mask.any() for mask in masks.values())


def test_synflow_leaves_no_layer_empty_where_the_others_do() -> None:
    model = seeded(narrow_vgg19)
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(32, 3, 16, 16, generator=generator), torch.arange(32) % 10
    data = Batch(images, labels)

    for density in (0.02, 0.002):
        assert empty_layers(synflow(model, round(density * total(model)), example=images[:1])) == 0
    few = round(0.002 * total(model))
    assert empty_layers(snip(model, few, batch=data)) > 0
    assert empty_layers(magnitude(model, few)) > 0


def test_synflow_reaches_maximal_critical_compression() -> None:
    model = linear_chain(8, 12, 12, 12, 4)

    masks = synflow(model, 4, example=torch.zeros(1, 8))

    assert [int(mask.sum()) for mask in masks.values()] == [1, 1, 1, 1]
    through = torch.ones(8)
    for mask in masks.values():
        through = mask @ through
    assert through.sum() == 1  # the four form one path


def test_synflow_survives_a_depth_that_float32_does_not() -> None:
    model = linear_chain(*[64] * 25)
    with torch.no_grad():
        for weight in model.parameters():
            weight.uniform_(5, 10)  # a flow of 10^66

    masks = synflow(model, 24 * 64, example=torch.zeros(1, 64))

    assert ones(masks) == 24 * 64
    assert empty_layers(masks) == 0


def test_no_sign_and_no_running_mean_changes_the_flow() -> None:
    model = seeded(ResidualNet)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.neg_()
        other.get_buffer("norm0.running_mean").add_(1e6)

    first, second = (synflow(each, 100, example=BATCH.images) for each in (model, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_magnitude_keeps_the_largest_of_the_whole_network() -> None:
    model = seeded(ResidualNet)
    masks = magnitude(model, 200)

    assert ones(masks) == 200
    assert in_order(masks, {name: weight.detach().abs() for name, weight in maskable(model).items()})


@pytest.mark.parametrize("name", sorted(INITIAL))
@pytest.mark.parametrize("architecture", ["vgg8", "cifar-resnet20"])
def test_every_start_is_exact_on_real_networks(name: str, architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chase.sparse.saliency.ROUNDS", 5)
    settings = {"width": 0.25} if architecture == "vgg8" else {}
    model = seeded(lambda: build(architecture, num_classes=10, in_channels=1, **settings))
    images, labels = class_balanced(load_data("digits").train, per_class=2)

    for density in (0.1, 0.05, 0.02):
        masks = INITIAL[name](model, round(density * total(model)), batch=Batch(images, labels))
        assert ones(masks) == round(density * total(model))
        assert list(masks) == list(maskable(model))


class Attentive(nn.Module):
    """Logits [n, 5] of images [n, 3, 6, 6] by attention over rows, with dropout, and a weight that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(18, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, dim_feedforward=24, dropout=0.3, batch_first=True)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.twice, self.again = nn.Linear(16, 16), nn.Linear(16, 16)
        self.again.weight = self.twice.weight
        self.fc, self.unused = nn.Linear(16, 5), nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.embed(x.transpose(1, 2).flatten(2)))
        x = self.attention(x, x, x, need_weights=False)[0]
        out: Tensor = self.fc(self.again(self.norm(self.twice(x).mean(1)).relu()))
        return out


def state_of(model: nn.Module) -> list[tuple[Tensor, bool, Tensor | None]]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    return [(tensor.detach().clone(), tensor.requires_grad, gradients.get(name)) for name, tensor in tensors]


@pytest.mark.parametrize("name", sorted(INITIAL))
@pytest.mark.parametrize("make", [ResidualNet, Attentive])
def test_the_model_and_the_generators_stay_as_they_were(name: str, make: Callable[[], nn.Module]) -> None:
    model = seeded(make).eval()
    model.get_submodule("fc").train()
    model.get_parameter("fc.weight").requires_grad_(False)
    next(model.parameters()).grad = torch.full_like(next(model.parameters()), 3.0)
    before, modes, rng = state_of(model), [m.training for m in model.modules()], torch.get_rng_state()

    with torch.no_grad():  # whatever the caller is in
        masks = INITIAL[name](model, 300, batch=BATCH)

    assert ones(masks) == 300
    for (tensor, needs, gradient), (was, needed, had) in zip(state_of(model), before, strict=True):
        assert torch.equal(tensor, was)
        assert needs == needed
        assert (gradient is None) == (had is None)
        assert gradient is None or had is None or torch.equal(gradient, had)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), rng)


@pytest.mark.parametrize("name", sorted(INITIAL))
def test_the_same_masks_whatever_was_drawn_before(name: str) -> None:
    model = seeded(Attentive)
    torch.rand(3)
    first = INITIAL[name](model, 400, batch=BATCH)
    torch.rand(7)
    second = INITIAL[name](model, 400, batch=BATCH)

    assert all(torch.equal(first[key], second[key]) for key in first)
    assert "twice.weight" in first
    assert "again.weight" not in first


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_a_weight_that_takes_no_part_is_worth_nothing(name: str) -> None:
    model = seeded(Attentive)
    masks = INITIAL[name](model, 300, batch=BATCH)
    assert not masks["unused.weight"].any()


@pytest.mark.parametrize("name", sorted(INITIAL))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_masks_are_like_their_weights(name: str, dtype: torch.dtype) -> None:
    model = seeded(ResidualNet).to(dtype).to(memory_format=torch.channels_last)
    masks = INITIAL[name](model, 99, batch=BATCH)

    for key, weight in maskable(model).items():
        assert masks[key].dtype == dtype
        assert masks[key].stride() == weight.stride()
        assert not masks[key].requires_grad


@pytest.mark.parametrize("name", ["snip", "grasp"])
@pytest.mark.parametrize("part", [1, 5, 12])
def test_a_batch_in_parts_gives_the_masks_of_the_whole(name: str, part: int) -> None:
    model = seeded(small_mlp).double()  # without BatchNorm, whose statistics are of each part

    whole, parted = (INITIAL[name](model, 500, batch=replace(BATCH, part=size)) for size in (12, part))
    assert all(torch.equal(whole[key], parted[key]) for key in whole)


def test_the_parts_of_a_batch_are_equal_to_one_image_and_their_shares_add_up() -> None:
    parts = list(replace(BATCH, part=5).parts(torch.zeros(1, dtype=torch.float64)))

    assert [len(labels) for _, labels, _ in parts] == [4, 4, 4]
    assert math.fsum(share for _, _, share in parts) == pytest.approx(1)
    assert torch.equal(torch.cat([images for images, _, _ in parts]), BATCH.images.double())


def test_the_loss_can_be_another() -> None:
    model = seeded(small_mlp)

    def squared(outputs: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.mse_loss(outputs, nn.functional.one_hot(labels, 5).to(outputs))

    data = replace(BATCH, loss=squared)
    masks = snip(model, 200, batch=data)
    assert in_order(masks, sensitivities(model, data), 1e-6)
    assert not in_order(masks, sensitivities(model, BATCH), 1e-6)


@pytest.mark.parametrize("name", sorted(INITIAL))
@pytest.mark.parametrize("keep", [-1, 0, 2021])
def test_a_number_out_of_range_is_refused(name: str, keep: int) -> None:
    model = seeded(small_mlp)
    assert total(model) == 1980
    with pytest.raises(RecipeError, match=f"keep {keep} is outside 1 to 1980"):
        INITIAL[name](model, keep, batch=BATCH)


@pytest.mark.parametrize(("name", "says"), [("snip", "batch=Batch"), ("grasp", "batch=Batch"), ("synflow", "example=")])
def test_missing_data_is_asked_for(name: str, says: str) -> None:
    with pytest.raises(RecipeError, match=f"masks of {name} need {says}"):
        INITIAL[name](seeded(small_mlp), 10)


@pytest.mark.parametrize("name", sorted(INITIAL))
def test_a_saliency_that_is_not_finite_is_refused(name: str) -> None:
    model = seeded(small_mlp)
    with torch.no_grad():
        model.get_parameter("3.weight")[0, 0] = math.nan
    with pytest.raises(RecipeError, match=r"weight is not finite"):
        INITIAL[name](model, 10, batch=BATCH)


def test_a_model_that_cannot_be_measured_is_named() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 5), nn.Hardsigmoid())
    with pytest.raises(RecipeError, match=r"grasp cannot be measured on Sequential in torch.float32: .*hardsigmoid"):
        grasp(model, 10, batch=BATCH)
    with pytest.raises(RecipeError, match=r"synflow cannot be measured on Sequential in torch.float64: .*1x7"):
        synflow(model, 10, example=torch.zeros(1, 7))


def test_what_does_not_fit_is_refused() -> None:
    images, labels = batch(0)
    with pytest.raises(RecipeError, match="4 images and 3 labels"):
        Batch(images, labels[:3])
    with pytest.raises(RecipeError, match="0 images and 0 labels"):
        Batch(images[:0], labels[:0])
    with pytest.raises(RecipeError, match="part 0"):
        Batch(images, labels, part=0)
    with pytest.raises(UnknownName, match="no initial named 'snib'; did you mean 'snip'"):
        INITIAL["snib"]
