"""For the hazard zoo: a toy network, what may leave of it, and the proof that it leaves exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from chase.slimming import Group, Slimmed, channel_groups, prunable, slimmed
from chase.slimming.surgery import rebuild_, tensors_of
from chase.sparse.masks import Masks
from chase.tracing import Example, arguments

IMAGE, TOKENS, VECTOR = (3, 8, 8), (5, 4), (4,)
Operation = Callable[..., Any]


class Toy(nn.Module):
    """Named modules (and parameters and buffers), and a function of the network and its inputs."""

    def __init__(self, forward: Operation, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Module | nn.Parameter) or not isinstance(part, Tensor):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)
        self.function = forward

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def between(operation: Operation, last: nn.Module, shape: tuple[int, ...] = IMAGE, **parts: Any) -> Toy:
    """A layer `first` of 8 channels, an operation on (network, what it makes), and a consumer `last`."""
    first: nn.Module = nn.Conv2d(3, 8, 1) if shape == IMAGE else nn.Linear(4, 8)
    return Toy(lambda net, x: net.last(operation(net, net.first(x))), first=first, last=last, **parts)


def example_of(*shapes: tuple[int, ...]) -> Example:
    """Zeros of a batch of 1, one input for each shape."""
    inputs = tuple(torch.zeros(1, *shape) for shape in shapes)
    return inputs[0] if len(inputs) == 1 else inputs


def reasons(model: nn.Module, example: Example) -> dict[str, str | None]:
    """Why the channels of each group may not leave, or None if they may, skip connections or not."""
    return {group.name: group.why_not(prune_skip=True) for group in channel_groups(model, example)}


def reason(operation: Operation, last: nn.Module, shape: tuple[int, ...] = IMAGE, **parts: Any) -> str | None:
    """Why the channels of `first` in `between` may not leave, or None if they may."""
    return reasons(between(operation, last, shape, **parts), example_of(shape))["first"]


@torch.no_grad()
def scramble_(model: nn.Module, seed: int = 0) -> None:
    """Random values everywhere, so that nothing is zero, one or the identity by chance."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tensors_of(model).items():
        if tensor.is_floating_point():
            low = 0.5 if name.endswith("running_var") or tensor.ndim == 1 and name.endswith("weight") else -0.5
            tensor.copy_(low + torch.rand(tensor.shape, generator=generator))


def half_dead(model: nn.Module, groups: tuple[Group, ...], seed: int = 0) -> Masks:
    """Masks under which half of each group, at random, is dead; nothing else is masked."""
    generator = torch.Generator().manual_seed(seed)
    masks = Masks.dense(model, groups)
    for name, alive in masks.alive.items():
        alive[torch.randperm(len(alive), generator=generator)[: len(alive) // 2]] = False
        assert alive.any(), name
    return masks


def assert_exact(
    model: nn.Module,
    example: Example,
    leaving: dict[str, int],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    seed: int = 0,
) -> Slimmed:
    """Half of each group leaves and nothing else changes, with and without masks over what reads the dead channels.

    `leaving` are the groups whose units may leave, with how many; `shapes` are what the slim network is left with. It
    trains, and a fresh copy of the model takes its state.
    """
    scramble_(model, seed)
    groups = prunable(channel_groups(model, example), prune_skip=True)
    assert {group.name: group.size for group in groups} == leaving
    masks = half_dead(model, groups, seed)
    fresh = copy.deepcopy(model)
    result = slimmed(model, masks, example=example, round_to=1)
    masks.bury()
    slimmed(model, masks, example=example, round_to=1)

    tensors = tensors_of(result.model)
    assert {name: tuple(tensors[name].shape) for name in shapes} == shapes
    assert_rebuilds(fresh, result, example)
    assert_trains(result.model, example)
    return result


def assert_rebuilds(fresh: nn.Module, result: Slimmed, example: Example) -> None:
    """The plan and the state dict are all that a fresh model needs to be the slim one."""
    rebuild_(fresh, result.plan.to_dict())
    fresh.load_state_dict(result.model.state_dict(), strict=True)
    theirs = outputs(fresh.eval(), example, batch=3)

    for one, other in zip(outputs(copy.deepcopy(result.model).eval(), example, batch=3), theirs, strict=True):
        assert torch.equal(one, other)


def assert_trains(model: nn.Module, example: Example) -> None:
    """The forward pass in training mode runs, and a step of SGD moves weights."""
    model = copy.deepcopy(model).train()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = sum(leaf.float().square().sum() for leaf in outputs(model, example, batch=2))
    assert isinstance(loss, Tensor)
    loss.backward()
    optimizer.step()

    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def outputs(model: nn.Module, example: Example, *, batch: int) -> list[Tensor]:
    """All tensors that the model returns for a batch of random inputs, always the same."""
    generator = torch.Generator().manual_seed(1)

    def random(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator).to(x) if x.is_floating_point() else x

    inputs = pytree.tree_map_only(Tensor, random, arguments(example, batch=batch))
    return [leaf for leaf in pytree.tree_leaves(model(*inputs)) if isinstance(leaf, Tensor)]
