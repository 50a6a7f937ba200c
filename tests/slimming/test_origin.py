"""What a compacted training has lost can be put back as zeros."""

from __future__ import annotations

import copy

import torch
from small_training import ResidualNet, batch, plain_step, seeded
from torch import nn

from chase.slimming.origin import Origin
from chase.sparse import Chase, Masks, Sparsifier

METHOD = Chase(
    sparsity=0.8, update_every=2, channel_sparsity=0.5, channel_every=2, min_channel_ratio=1.0, round_to=1, stop=1.0
)


def training(steps: int = 6) -> tuple[nn.Module, Sparsifier, Origin]:
    net = seeded(ResidualNet)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sparse = Sparsifier(net, optimizer, METHOD.with_(prune_skip=True), steps=steps, example=torch.zeros(1, 3, 6, 6))
    origin = Origin(net, sparse.masks)
    for step in range(steps):
        plain_step(net, optimizer, step)
        if step in (2, 4):
            sparse.compact()
    return net, sparse, origin


def test_the_full_size_network_computes_what_the_compacted_one_does() -> None:
    net, sparse, origin = training()
    full = seeded(ResidualNet, seed=1)

    full.load_state_dict(origin.full_state(net.state_dict()))

    images, _ = batch(0, 8)
    assert torch.allclose(full.double().eval()(images.double()), net.double().eval()(images.double()), rtol=1e-12)
    masks = Masks.dense(full, origin.groups)
    masks.load_state_dict(origin.full_masks())
    for name in ("nonzero", "removed", "sparsity", "channel_sparsity"):
        assert getattr(masks, name) == getattr(sparse.masks, name)
    before = copy.deepcopy(full.state_dict())
    masks.apply_(full)
    assert all(torch.equal(before[name], tensor) for name, tensor in full.state_dict().items())


def test_the_way_back_gives_the_compacted_network() -> None:
    net, _, origin = training()

    state = origin.small_state(origin.full_state(net.state_dict()))

    assert any(state[name].shape != shape for name, shape in origin.shapes.items())
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())


def test_nothing_is_lost_where_nothing_was_cut() -> None:
    net = seeded(ResidualNet)
    origin = Origin(net, Masks.dense(net))

    state = origin.full_state(net.state_dict())

    assert origin.lost == {}
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    state["fc.bias"].fill_(9)
    assert not (net.state_dict()["fc.bias"] == 9).any()


def test_a_tensor_with_two_names_is_put_back_under_both() -> None:
    layer = nn.Linear(8, 8)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    sparse = Sparsifier(net, optimizer, METHOD, steps=2, example=torch.zeros(1, 4))
    origin = Origin(net, sparse.masks)
    for group in sparse.masks.groups:
        sparse.masks.alive[group.name][: group.size // 2] = False
    sparse.masks.bury()

    sparse.compact()

    state = origin.full_state(net.state_dict())
    assert net[2].weight.shape == (4, 4)
    assert state["2.weight"].shape == state["4.weight"].shape == (8, 8)
