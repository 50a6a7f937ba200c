"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from small_training import ResidualNet, batch, seeded
from torch import nn

from chase.sparse import Batch, Chase, Sparsifier
from chase.sparse.saliency import INITIAL

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]

METHOD = Chase(sparsity=0.7, channel_sparsity=0.5, round_to=1, update_every=10, channel_every=10, stop=0.5)


def on_gpu(steps: int) -> tuple[nn.Module, torch.optim.Optimizer, Sparsifier]:
    model = seeded(ResidualNet).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    return model, optimizer, Sparsifier(model, optimizer, METHOD, steps=steps, example=batch(0)[0][:1], seed=0)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    x, y = (value.cuda() for value in batch(number))
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def test_an_ordinary_step_never_waits_for_the_gpu() -> None:
    model, optimizer, sparsifier = on_gpu(steps=100)
    x, y = (value.cuda() for value in batch(0))
    step(model, optimizer, 0)  # whatever is made once has been made
    torch.cuda.synchronize()

    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sparsifier.step == 4


def test_targets_are_met_on_the_gpu() -> None:
    model, optimizer, sparsifier = on_gpu(steps=40)

    for number in range(40):
        step(model, optimizer, number)

    assert sparsifier.masks.channel_sparsity == 0.5
    assert sparsifier.masks.nonzero == round(0.3 * sparsifier.masks.total)
    assert all(mask.is_cuda for mask in sparsifier.masks.weights.values())
    parameters = dict(model.named_parameters())
    assert not any(parameters[name].detach()[mask == 0].any() for name, mask in sparsifier.masks.weights.items())


@pytest.mark.parametrize("name", sorted(INITIAL))
def test_initial_masks_are_made_on_the_gpu_and_leave_its_generator_alone(name: str) -> None:
    model = seeded(ResidualNet).cuda()
    before = torch.cuda.get_rng_state()

    masks = INITIAL[name](model, 300, batch=Batch(*batch(0)))

    assert all(mask.is_cuda for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == 300
    assert torch.equal(torch.cuda.get_rng_state(), before)
