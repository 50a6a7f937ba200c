"""Deep-R: the number of living weights is constant, signs are fixed, and dormant weights come to life at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from small_training import batch, plain_step, seeded, small_mlp
from torch import Tensor, nn

from chase.sparse import Sparsifier, make
from chase.sparse.rewiring import _distinct


def start(l1: float, lr: float = 0.1, sparsity: float = 0.7) -> tuple[nn.Module, torch.optim.Optimizer, Sparsifier]:
    net = seeded(small_mlp)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    return net, optimizer, Sparsifier(net, optimizer, make("deep-r", sparsity=sparsity, rewire_l1=l1), steps=50)


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors.values()]).clone()


def test_a_weight_lives_as_long_as_its_sign() -> None:
    net, optimizer, sparse = start(0.01)
    weights = {name: net.get_parameter(name) for name in sparse.masks.weights}
    changed = 0
    for step in range(1, 21):
        signs, alive = flat(weights).sign(), flat(sparse.masks.weights) != 0
        plain_step(net, optimizer, step)
        now = flat(sparse.masks.weights) != 0
        stayed = alive & now & (flat(weights).abs() > 1e-30)  # not retired and drawn again at once
        assert torch.equal(flat(weights).sign()[stayed], signs[stayed])
        assert flat(weights)[now].count_nonzero() == now.sum()
        assert int(now.sum()) == round(0.3 * sparse.masks.total)
        changed += int((alive & ~now).sum())
    assert changed > 0


def test_a_weight_that_is_drawn_again_at_once_starts_without_momentum() -> None:
    net = seeded(small_mlp)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sparse = Sparsifier(net, optimizer, make("deep-r", sparsity=0.1, rewire_l1=100.0), steps=50)
    weights = {name: net.get_parameter(name) for name in sparse.masks.weights}
    for step in range(1, 3):
        before = flat(sparse.masks.weights) != 0
        plain_step(net, optimizer, step)
        again = before & (flat(sparse.masks.weights) != 0) & (flat(weights).abs() < 1e-30)
        buffers = {name: optimizer.state[weight]["momentum_buffer"] for name, weight in weights.items()}

        assert again.sum() > 1000
        assert not flat(buffers)[again].any()


def test_without_gradients_a_weight_drifts_to_zero_and_is_replaced() -> None:
    net, optimizer, sparse = start(1.0, lr=0.01)
    before, alive = flat({n: net.get_parameter(n) for n in sparse.masks.weights}), flat(sparse.masks.weights) != 0
    optimizer.zero_grad()
    optimizer.step()
    after, now = flat({n: net.get_parameter(n) for n in sparse.masks.weights}), flat(sparse.masks.weights) != 0

    far = alive & (before.abs() > 0.05)  # η α = 0.01 and noise of deviation η α / 3
    moved = (before - after)[far] * before[far].sign()
    assert abs(float(moved.mean()) - 0.01) < 0.001
    assert abs(float(moved.std()) - 0.01 / 3) < 0.001
    assert not now[alive & (before.abs() < 0.0005)].any()
    born = now & ~alive
    assert int(born.sum()) == int((alive & ~now).sum()) > 0
    assert after[born].abs().max() < 1e-30
    assert {1.0, -1.0} == set(after[born].sign().tolist())


def test_the_draw_reaches_every_layer_and_no_dead_channel() -> None:
    net, optimizer, sparse = start(100.0, lr=0.1)  # everything crosses zero
    plain_step(net, optimizer, 1)
    counts = {name: int(mask.sum()) for name, mask in sparse.masks.weights.items()}

    assert all(abs(counts[name] / mask.numel() - 0.3) < 0.15 for name, mask in sparse.masks.weights.items())


def test_few_dormant_weights_take_as_few_draws_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    for name in ("randint", "randperm"):
        monkeypatch.setattr(torch, name, counted(getattr(torch, name), drawn))
    net, optimizer, sparse = start(0.0001, sparsity=0.7)
    room = sum(int((mask == 0).sum()) for mask in sparse.masks.weights.values())
    for mask in sparse.masks.weights.values():
        mask.fill_(1)
    next(iter(sparse.masks.weights.values()))[0, :3] = 0
    drawn.clear()

    sparse._rewiring.revive(2, 1)  # type: ignore[union-attr]

    assert room > 1000
    assert sum(drawn) <= 2 * 3
    assert sparse.masks.nonzero == sparse.masks.total - 1


def counted(function: Callable[..., Tensor], drawn: list[int]) -> Callable[..., Tensor]:
    """The same function of torch, which notes how many numbers it drew."""

    def counting(*arguments: Any, **settings: Any) -> Tensor:
        numbers = function(*arguments, **settings)
        drawn.append(numbers.numel())
        return numbers

    return counting


@pytest.mark.parametrize(("count", "total"), [(0, 5), (3, 5), (5, 5), (9, 5), (1, 1000), (400, 1000), (0, 0)])
def test_drawn_numbers_are_different_and_uniform(count: int, total: int) -> None:
    generator = torch.Generator().manual_seed(0)
    times = torch.zeros(total)
    for _ in range(200):
        drawn = _distinct(count, total, generator)
        assert len(drawn) == len(drawn.unique()) == min(count, total)
        times[drawn] += 1
    expected = 200 * min(1.0, count / max(1, total))
    assert all(abs(float(each) - expected) < 40 for each in times)


def test_the_walk_is_a_function_of_the_seed() -> None:
    runs = []
    for _ in range(2):
        net, optimizer, _ = start(0.1)
        for step in range(1, 6):
            plain_step(net, optimizer, step)
        runs.append(net.state_dict())

    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_the_last_dormant_weights_are_found() -> None:
    net, optimizer, sparse = start(100.0, sparsity=0.001)
    images = batch(0)[0]
    assert images.shape[0] == 4
    plain_step(net, optimizer, 1)

    assert sparse.masks.nonzero == round(0.999 * sparse.masks.total)
