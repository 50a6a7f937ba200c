"""Optimizers and learning rates from their settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import nn

from chase.optimizers import build_optimizer, learning_rate
from chase.settings import OptimizerSettings, ScheduleSettings


def network() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))
    model[2].weight.requires_grad_(False)
    return model


def test_sgd_takes_its_settings() -> None:
    optimizer = build_optimizer(network(), OptimizerSettings(lr=0.2, momentum=0.8, nesterov=True, weight_decay=0.01))

    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (0.2, 0.8, True, 0.01)


def test_adamw_takes_its_settings() -> None:
    optimizer = build_optimizer(network(), OptimizerSettings(name="adamw", lr=1e-3, betas=(0.8, 0.9)))

    assert isinstance(optimizer, torch.optim.AdamW)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]) == (1e-3, (0.8, 0.9))


def twins() -> list[nn.Module]:
    """Two networks with the same weights."""
    models = [network() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    return models


def assert_alike_after_steps(models: Sequence[nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Three steps along the same gradients give the same weights, bit for bit."""
    for number in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            for parameter in model.parameters():
                parameter.grad = torch.linspace(-1, number, parameter.numel()).view_as(parameter)
            optimizer.step()
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(ours, theirs)


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that nothing has been written to holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_first_step_that_is_skipped_leaves_nothing_behind(name: str) -> None:
    models = twins()
    plain, skipping = (build_optimizer(model, OptimizerSettings(name=name, nesterov=True)) for model in models)
    skipping.found_inf = torch.ones(())  # type: ignore[attr-defined]  # as a GradScaler sets it when fp16 overflows
    for parameter in models[1].parameters():
        parameter.grad = torch.full_like(parameter, torch.inf)
    skipping.step()
    skipping.found_inf = torch.zeros(())  # type: ignore[attr-defined]

    assert_alike_after_steps(models, (plain, skipping))


def test_momentum_begins_as_that_of_torch() -> None:
    models = twins()
    trained = [parameter for parameter in models[1].parameters() if parameter.requires_grad]
    torchs = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=5e-4, fused=True)
    optimizers = (build_optimizer(models[0], OptimizerSettings()), torchs)

    assert_alike_after_steps(models, optimizers)


def test_every_trainable_parameter_is_in_one_group() -> None:
    (group,) = build_optimizer(network(), OptimizerSettings()).param_groups

    assert [tuple(parameter.shape) for parameter in group["params"]] == [(4, 3, 1, 1), (4,), (4,), (4,), (2,)]


def test_norms_and_biases_can_be_exempt_from_decay() -> None:
    optimizer = build_optimizer(network(), OptimizerSettings(weight_decay=0.01, norm_decay=False))

    assert [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups] == [(1, 0.01), (4, 0.0)]


def rate(epoch: float, schedule: ScheduleSettings) -> float:
    """The rate at the start of `epoch` of 10, with 100 steps each, for a peak of 0.5."""
    return learning_rate(round(epoch * 100), per_epoch=100, epochs=10, lr=0.5, schedule=schedule)


@pytest.mark.parametrize(("epoch", "expected"), [(0, 0.5), (2.5, 0.5 * 0.8535533905932737), (5, 0.25), (10, 0.0)])
def test_cosine_falls_to_nothing(epoch: float, expected: float) -> None:
    assert rate(epoch, ScheduleSettings(name="cosine")) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("epoch", "expected"), [(0, 0.5), (3.99, 0.5), (4, 0.1), (7.5, 0.02), (9, 0.02)])
def test_multistep_falls_at_its_milestones(epoch: float, expected: float) -> None:
    schedule = ScheduleSettings(name="multistep", milestones=(4, 7.5), gamma=0.2)

    assert rate(epoch, schedule) == pytest.approx(expected)


def test_constant_stays() -> None:
    assert {rate(epoch, ScheduleSettings(name="constant")) for epoch in range(10)} == {0.5}


@pytest.mark.parametrize("name", ["cosine", "multistep", "constant"])
def test_warmup_climbs_in_equal_steps_to_the_full_rate(name: str) -> None:
    schedule = ScheduleSettings(name=name, warmup_epochs=2, milestones=(5,))

    assert rate(0, schedule) == pytest.approx(0.5 / 200)  # the first step is not wasted
    assert rate(1, schedule) == pytest.approx(0.5 * 101 / 200)
    assert rate(1.99, schedule) == pytest.approx(0.5)
    assert rate(2, schedule) == pytest.approx(0.5)


def test_cosine_begins_after_the_warmup() -> None:
    assert rate(6, ScheduleSettings(name="cosine", warmup_epochs=2)) == pytest.approx(0.25)


def test_a_warmup_longer_than_the_training_never_arrives() -> None:
    assert rate(9.99, ScheduleSettings(warmup_epochs=20)) == pytest.approx(0.25)
