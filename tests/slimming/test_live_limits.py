"""Compaction of networks and optimizers that are not the plain case, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from hazards import IMAGE, Toy, half_dead, scramble_
from small_training import backward
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from chase.errors import RecipeError
from chase.slimming import channel_groups, compact, prunable, slimmed
from chase.sparse import Chase, Masks, Sparsifier
from chase.sparse.channels import Scored, group_scores
from chase.sparse.criteria import CHANNEL_SCORES

Optimizer = torch.optim.Optimizer
Forward = Callable[[Tensor], Tensor]
EXAMPLE = torch.zeros(1, *IMAGE, dtype=torch.float64)
METHOD = Chase(sparsity=0.3, update_every=2, channel_sparsity=0.5, channel_every=2, round_to=1, min_channel_ratio=1.0)


def plain() -> Toy:
    """Two convolutions with a norm between them, and a classifier."""
    return Toy(
        lambda net, x: net.fc(net.two(net.norm(net.one(x)).relu()).relu().mean((2, 3))),
        one=nn.Conv2d(3, 8, 3, padding=1),
        norm=nn.BatchNorm2d(8),
        two=nn.Conv2d(8, 8, 3),
        fc=nn.Linear(8, 4),
    )


def grouped() -> Toy:
    """A grouped convolution between a depthwise one and a transposed one."""
    return Toy(
        lambda net, x: net.fc(net.up(net.two(net.deep(net.one(x)).relu()).relu()).relu().mean((2, 3))),
        one=nn.Conv2d(3, 8, 1),
        deep=nn.Conv2d(8, 8, 3, groups=8),
        two=nn.Conv2d(8, 12, 1, groups=2),
        up=nn.ConvTranspose2d(12, 10, 2),
        fc=nn.Linear(10, 4),
    )


def tied() -> Toy:
    """One linear layer under two names, used twice."""
    layer = nn.Linear(8, 8)
    return Toy(
        lambda net, x: net.fc(net.again(net.layer(net.one(x).relu()).relu()).relu()),
        one=nn.Linear(4, 8),
        layer=layer,
        again=layer,
        fc=nn.Linear(8, 4),
    )


def loss_of(forward: Any, step: int, shape: tuple[int, ...] = IMAGE) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(6, *shape, generator=generator, dtype=torch.float64)
    return nn.functional.cross_entropy(forward(images), torch.arange(6) % 4)


def sgd(parameters: Iterable[nn.Parameter]) -> Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def losses(
    make: Callable[[], nn.Module],
    *,
    at: tuple[int, ...],
    shape: tuple[int, ...] = IMAGE,
    optimize: Callable[..., Optimizer] = sgd,
    wrap: Callable[[nn.Module], Any] = lambda net: net,
) -> tuple[list[float], Sparsifier, Optimizer]:
    """The losses of 12 steps of a sparse training that is compacted before some of them."""
    torch.manual_seed(0)
    net = make().double()
    scramble_(net)
    optimizer, forward, found = optimize(net.parameters()), wrap(net), list[float]()
    example = torch.zeros(1, *shape, dtype=torch.float64)
    sparse = Sparsifier(forward, optimizer, METHOD, steps=12, example=example)
    for step in range(12):
        if step in at:
            assert sparse.masks.removed
            sparse.compact()
        loss = loss_of(forward, step, shape)
        found.append(float(loss.detach()))
        optimizer.zero_grad()
        backward(loss)
        optimizer.step()
    return found, sparse, optimizer


@pytest.mark.parametrize(("make", "shape"), [(plain, IMAGE), (grouped, IMAGE), (tied, (4,))])
def test_the_training_goes_the_same_way_however_often_it_is_compacted(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    masked, theirs, _ = losses(make, at=(), shape=shape)
    cut, ours, _ = losses(make, at=(3, 5, 11), shape=shape)

    assert torch.allclose(torch.tensor(masked), torch.tensor(cut), rtol=1e-12, atol=0)
    assert ours.masks.widths() == theirs.masks.widths()
    assert (ours.masks.sparsity, ours.masks.channel_sparsity) == (theirs.masks.sparsity, theirs.masks.channel_sparsity)


@pytest.mark.parametrize("criterion", ["umm", "ws", "mmm", "l1", "l2", "fpgm"])
def test_the_scores_of_living_channels_are_those_of_their_dense_rows(criterion: str) -> None:
    """Also of a transposed convolution, and of a grouped one whose two groups read different channels."""
    scores: list[dict[str, Tensor]] = []
    for at in ((), (6,)):
        sparse = losses(grouped, at=at)[1]
        weights, masks = dict(sparse.model.named_parameters()), sparse.masks
        scored = Scored(weights, masks.weights, masks.alive, masks.dense_shapes)
        found = {group.name: group_scores(group, CHANNEL_SCORES[criterion], scored) for group in masks.groups}
        scores.append({name: values[masks.alive[name]] for name, values in found.items()})

    assert scores[0].keys() == scores[1].keys() == {"one", "two", "up"}
    for name, values in scores[0].items():
        assert torch.allclose(values, scores[1][name], rtol=1e-6), name


def test_a_shared_layer_stays_shared() -> None:
    net = losses(tied, at=(7,), shape=(4,))[1].model

    assert net.get_submodule("layer") is net.get_submodule("again")
    assert len(list(net.parameters())) == 6
    assert net.get_parameter("layer.weight").shape == net.get_parameter("again.weight").shape


def test_a_compiled_network_goes_on() -> None:
    def compiled(net: nn.Module) -> Any:
        return torch.compile(net, backend="eager")

    masked, _, _ = losses(plain, at=(), wrap=compiled)
    cut, sparse, _ = losses(plain, at=(5,), wrap=compiled)

    assert torch.allclose(torch.tensor(masked), torch.tensor(cut), rtol=1e-12, atol=0)
    assert sparse.model.get_parameter("one.weight").shape[0] < 8


def test_each_group_of_parameters_keeps_its_settings_and_frozen_ones_stay_frozen() -> None:
    def optimize(parameters: Iterable[nn.Parameter]) -> Optimizer:
        first, second, *rest = parameters
        second.requires_grad_(False)
        return torch.optim.AdamW([{"params": [first], "lr": 0.02}, {"params": [second, *rest], "weight_decay": 0.3}])

    masked, _, _ = losses(plain, at=(), optimize=optimize)
    cut, sparse, optimizer = losses(plain, at=(5,), optimize=optimize)

    assert torch.allclose(torch.tensor(masked), torch.tensor(cut), rtol=1e-12, atol=0)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 7]
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.02, 0.01), (1e-3, 0.3)]
    assert optimizer.param_groups[0]["params"][0] is sparse.model.get_parameter("one.weight")
    assert [name for name, parameter in sparse.model.named_parameters() if not parameter.requires_grad] == ["one.bias"]


def test_channels_last_stays() -> None:
    _, sparse, optimizer = losses(lambda: plain().to(memory_format=torch.channels_last), at=(6,))

    for name in ("one.weight", "two.weight"):
        weight = sparse.model.get_parameter(name)
        assert weight.shape[0] < 8
        assert weight.grad is not None
        for tensor in (weight, weight.grad, optimizer.state[weight]["momentum_buffer"], sparse.masks.weights[name]):
            assert tensor.is_contiguous(memory_format=torch.channels_last), name
            assert not tensor.is_contiguous()


def halved(make: Callable[[], nn.Module] = plain) -> tuple[nn.Module, Masks]:
    """A network in float64 with half of its channels dead, masked; what reads them keeps its weights."""
    torch.manual_seed(0)
    net = make().double()
    scramble_(net)
    masks = half_dead(net, prunable(channel_groups(net, EXAMPLE)))
    masks.apply_(net)
    return net, masks


def constant() -> Toy:
    """Dead channels arrive as sigmoid(0) = 0.5 where the last layer reads them."""
    return Toy(lambda net, x: net.last(net.one(x).sigmoid()), one=nn.Conv2d(3, 8, 1), last=nn.Conv2d(8, 2, 1))


def test_a_constant_is_folded_into_the_bias_of_the_network_and_of_its_copies() -> None:
    net, masks = halved(constant)
    average = copy.deepcopy(net)
    with torch.no_grad():
        average.get_parameter("last.weight").mul_(3)
        average.get_parameter("last.bias").add_(1)
    images = torch.randn(2, *IMAGE, dtype=torch.float64)
    before = [net(images), average(images)]
    slim = slimmed(net, masks, example=EXAMPLE, round_to=1).model

    compact(net, masks, copies=[average])

    assert net.get_parameter("last.weight").shape == average.get_parameter("last.weight").shape == (2, 4, 1, 1)
    for model, expected in zip([net, average], before, strict=True):
        assert torch.allclose(model(images), expected, rtol=1e-12, atol=1e-13)
    assert torch.equal(net(images), slim(images))


def everything(net: nn.Module, masks: Masks, optimizer: Optimizer) -> str:
    """All that a training holds, and which objects hold it."""
    torch.set_printoptions(profile="full")
    try:
        ids = [id(tensor) for tensor in (*net.parameters(), *net.buffers(), *masks.weights.values())]
        return repr((net, ids, net.state_dict(), masks.state_dict(), masks.groups, optimizer.state_dict()))
    finally:
        torch.set_printoptions(profile="default")


def test_an_optimizer_with_a_flat_history_is_refused() -> None:
    net, masks = halved()
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.01)

    def closure() -> float:
        loss = loss_of(net, 0)
        backward(loss)
        return loss.item()

    optimizer.step(closure)

    with pytest.raises(RecipeError, match="LBFGS keeps .* cannot be cut; use SGD, Adam or AdamW"):
        compact(net, masks, optimizer)


@pytest.mark.parametrize("kind", ["Adafactor", "copy", "missing", "wrapper", "grid"])
def test_what_cannot_be_cut_along_is_refused_and_nothing_is_changed(kind: str) -> None:
    net, masks = halved()
    optimizer: Optimizer = (torch.optim.Adafactor if kind == "Adafactor" else torch.optim.AdamW)(
        net.parameters(), lr=0.1
    )
    backward(loss_of(net, 0))
    optimizer.step()
    other = copy.deepcopy(net)
    if kind == "copy":
        other.get_submodule("two").weight = nn.Parameter(torch.zeros(8, 7, 3, 3))
    elif kind == "missing":
        other.get_submodule("two").register_parameter("bias", None)
    copies = {"wrapper": [other, AveragedModel(net)]}.get(kind, [other])
    text = {
        "Adafactor": r"Adafactor keeps row_var \(\[8, 3, 3, 1\]\) for a parameter of shape \[8, 3, 3, 3\], which",
        "copy": "Toy cannot be compacted: its two.weight is missing or has another shape",
        "missing": "Toy cannot be compacted: its two.bias is missing",
        "wrapper": "AveragedModel cannot be compacted: its one.weight is missing .* hand in the network itself",
        "grid": "round_to must be a whole number of at least 1, not 0",
    }[kind]
    before = everything(net, masks, optimizer), repr(other)

    with pytest.raises(RecipeError, match=text):
        compact(net, masks, optimizer, copies=copies, round_to=0 if kind == "grid" else 1)

    assert (everything(net, masks, optimizer), repr(other)) == before


def test_a_refused_compaction_leaves_a_training_that_goes_on() -> None:
    _, sparse, _ = losses(plain, at=())
    before = sparse.masks.state_dict()

    with pytest.raises(RecipeError, match="missing or has another shape"):
        sparse.compact(copies=[nn.Linear(2, 2)])

    assert str(sparse.masks.state_dict()) == str(before)
    backward(loss_of(sparse.model, 12))
    sparse.optimizer.step()
