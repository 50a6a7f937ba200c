"""One optimizer step, whatever surrounds it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_training import ResidualNet, batch, seeded
from torch import Tensor, nn

from chase.settings import TrainingSettings
from chase.sparse import Chase, Sparsifier
from chase.step import TrainingStep

CPU = torch.device("cpu")
OPTIMIZERS: dict[str, Any] = {"sgd": {"lr": 0.1, "momentum": 0.9}, "adamw": {"lr": 0.01}}


def training(name: str = "sgd", *, make: Any = ResidualNet, events: int = 0, **settings: Any) -> TrainingStep:
    model = seeded(make)
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name]
    optimizer = kind(model.parameters(), fused=True, **OPTIMIZERS[name])
    sparse = Sparsifier(model, optimizer, Chase(sparsity=0.5, update_every=events, stop=1.0), steps=100)
    return TrainingStep(model, optimizer, sparse, TrainingSettings(**settings), CPU)


def everything(step: TrainingStep) -> list[Tensor]:
    """Copies of all that a step may change."""
    found = [tensor.clone() for tensor in step.model.state_dict().values() if tensor.is_floating_point()]
    for state in step.optimizer.state.values():
        found += [value.clone() for value in state.values() if isinstance(value, Tensor)]
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_with_gradients_that_are_not_finite_changes_nothing_if_it_may_be_skipped(
    name: str, value: float
) -> None:
    step = training(name, skip_nonfinite=1)
    step(*batch(0))
    before = everything(step)
    images, labels = batch(1)
    images[0, 0, 0, 0] = value

    loss = step(images, labels)

    assert loss.isnan()
    assert all(torch.equal(old, new) for old, new in zip(before, everything(step), strict=True))
    assert step(*batch(2)).isfinite()
    assert not all(torch.equal(old, new) for old, new in zip(before, everything(step), strict=True))


def test_growth_at_a_skipped_step_ignores_its_gradients() -> None:
    step = training(events=2, skip_nonfinite=1)
    step(*batch(0))
    images, labels = batch(1)
    images[:] = float("nan")

    step(images, labels)

    assert step.sparsifier.masks.sparsity == pytest.approx(1 - (step.sparsifier.events[2].density or 0), abs=1e-3)
    assert all(tensor.isfinite().all() for tensor in everything(step))


def test_steps_that_are_guarded_and_sound_are_plain_steps() -> None:
    plain, guarded = training(), training(skip_nonfinite=1)

    for number in range(3):
        assert torch.equal(plain(*batch(number)), guarded(*batch(number)))

    assert all(torch.equal(a, b) for a, b in zip(everything(plain), everything(guarded), strict=True))


class Graphed(nn.Module):
    """What `torch.compile` with CUDA graphs makes of a module: every backward pass uses the same memory."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.memory = module, [torch.zeros_like(each) for each in module.parameters()]

    def forward(self, images: Tensor) -> Tensor:
        graphed, parameters = self, [*self.module.parameters()]

        class Call(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, images: Tensor, *parameters: Tensor) -> Tensor:
                ctx.save_for_backward(images)
                out: Tensor = graphed.module(images)
                return out

            @staticmethod
            def backward(ctx: Any, *gradients: Tensor) -> Any:
                with torch.enable_grad():
                    out = graphed.module(*ctx.saved_tensors)
                    found = torch.autograd.grad(out, parameters, gradients)
                for memory, gradient in zip(graphed.memory, found, strict=True):
                    memory.copy_(gradient)
                return None, *(memory.detach() for memory in graphed.memory)

        out: Tensor = Call.apply(images, *parameters)
        return out


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_parts_of_a_batch_add_up_where_cuda_graphs_reuse_the_memory_of_gradients(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, mode: Graphed(model))
    whole, divided = training(make=without_norm), training(make=without_norm, accumulate=2, compile=mode)

    for number in range(4):
        assert torch.allclose(whole(*batch(number, 8)), divided(*batch(number, 8)), rtol=1e-5)

    assert all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(everything(whole), everything(divided), strict=True)
    )


def without_norm() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 16), nn.ReLU(), nn.Linear(16, 5))


@pytest.mark.parametrize("parts", [2, 3])  # of 8 images: 4 + 4, and 3 + 3 + 2
def test_a_batch_in_parts_gives_the_gradients_of_the_whole(parts: int) -> None:
    whole, divided = training(make=without_norm), training(make=without_norm, accumulate=parts)

    for number in range(4):
        assert torch.allclose(whole(*batch(number, 8)), divided(*batch(number, 8)), rtol=1e-5)

    assert all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(everything(whole), everything(divided), strict=True)
    )
