"""Masks: which weights and which channels live.

Weight masks are float tensors of {0, 1}, of each weight's own dtype, device and layout, since multiplying gradients
by them is what an ordinary step pays for. Channel masks are bool vectors over the units of a group. On disk both are
packed to bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chase.errors import CheckpointError
from chase.slimming.groups import Group

MASKABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)


def maskable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that sparsity is counted over: those of convolutions and linear layers, by name."""
    owners = {id(module.weight) for module in model.modules() if isinstance(module, MASKABLE)}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in owners}


def pack(mask: Tensor) -> Tensor:
    """A mask as bits, uint8 [⌈numel / 8⌉]."""
    return torch.from_numpy(np.packbits((mask != 0).flatten().cpu().numpy()))


def unpack(bits: Tensor, like: Tensor) -> Tensor:
    """The mask that `pack` packed, with the shape, dtype, device and layout of `like`.

    Raises:
        CheckpointError: if the number of bits is not that of the shape.
    """
    if len(bits) != -(-like.numel() // 8):
        raise CheckpointError(f"a mask of {len(bits)} bytes does not fit a weight of {list(like.shape)}")
    flat = torch.from_numpy(np.unpackbits(bits.numpy(), count=like.numel()))
    return torch.empty_like(like).copy_(flat.view(like.shape))


class Masks:
    """The masks of one model.

    `weights` maps the name of a maskable weight to its mask; `alive` maps the name of each prunable group to a bool
    vector [size] on the CPU; `groups` are the prunable groups.
    """

    def __init__(self, weights: dict[str, Tensor], groups: Iterable[Group] = ()) -> None:
        self.weights = weights
        self.groups = tuple(groups)
        self.alive = {group.name: torch.ones(group.size, dtype=torch.bool) for group in self.groups}

    @classmethod
    def dense(cls, model: nn.Module, groups: Iterable[Group] = ()) -> Masks:
        """Masks under which everything lives."""
        return cls({name: torch.ones_like(weight) for name, weight in maskable(model).items()}, groups)

    @property
    def total(self) -> int:
        """Maskable weights of the dense model."""
        return sum(mask.numel() for mask in self.weights.values())

    @property
    def nonzero(self) -> int:
        """Weights that live."""
        return sum(int(torch.count_nonzero(mask)) for mask in self.weights.values())

    @property
    def sparsity(self) -> float:
        """1 − nonzero / total, over the maskable weights of the dense model."""
        return 1 - self.nonzero / self.total

    @property
    def channels(self) -> int:
        """Prunable channels of the dense model."""
        return sum(group.size for group in self.groups)

    @property
    def removed(self) -> int:
        """Channels that are dead."""
        return sum(int((~alive).sum()) for alive in self.alive.values())

    @property
    def channel_sparsity(self) -> float:
        """Removed channels over prunable channels; 0 where none is prunable."""
        return self.removed / self.channels if self.channels else 0.0

    def dead_slices(self) -> Iterator[tuple[str, int, Tensor]]:
        """Each slice that lost channels, as (tensor name, dim, positions that died)."""
        for group in self.groups:
            dead = ~self.alive[group.name]
            if dead.any():
                for part in group.slices:
                    yield part.tensor, part.dim, part.positions[dead[part.units]]

    def bury(self) -> None:
        """Mask every weight that belongs to a dead channel: its producer's row and its consumers' columns."""
        for name, dim, positions in self.dead_slices():
            if name in self.weights:
                self.weights[name].index_fill_(dim, positions.to(self.weights[name].device), 0)

    def allowed(self, name: str) -> Tensor:
        """The entries of a weight whose channels live, bool of the weight's shape."""
        mask = self.weights[name]
        allowed = torch.ones(mask.shape, dtype=torch.bool, device=mask.device)
        for tensor, dim, positions in self.dead_slices():
            if tensor == name:
                allowed.index_fill_(dim, positions.to(mask.device), False)
        return allowed

    def vectors(self, model: nn.Module) -> dict[str, Tensor]:
        """Masks of the other parameters that belong to dead channels (biases, γ, β), by name."""
        parameters = dict(model.named_parameters())
        vectors: dict[str, Tensor] = {}
        for name, dim, positions in self.dead_slices():
            if name in parameters and name not in self.weights:
                vector = vectors.setdefault(name, torch.ones_like(parameters[name], requires_grad=False))
                vector.index_fill_(dim, positions.to(vector.device), 0)
        return vectors

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> None:
        """Set to zero, in place, whatever is masked in `model`."""
        parameters = dict(model.named_parameters())
        for name, mask in (self.weights | self.vectors(model)).items():
            parameters[name].mul_(mask.to(parameters[name]))

    def widths(self) -> dict[str, int]:
        """Living channels per prunable group."""
        return {name: int(alive.sum()) for name, alive in self.alive.items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape each maskable weight has once its dead channels are cut out."""
        shapes = {name: list(mask.shape) for name, mask in self.weights.items()}
        for name, dim, positions in self.dead_slices():
            if name in shapes:
                shapes[name][dim] -= len(positions)
        return {name: tuple(sides) for name, sides in shapes.items()}

    def state_dict(self) -> dict[str, Any]:
        """Packed bits: {"weights": {name: uint8}, "alive": {group: uint8}}."""
        return {
            "weights": {name: pack(mask) for name, mask in self.weights.items()},
            "alive": {name: pack(alive) for name, alive in self.alive.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over packed masks, in place.

        Raises:
            CheckpointError: if they belong to another model.
        """
        kinds = (("weights", self.weights), ("alive", self.alive))
        odd = sorted(name for kind, mine in kinds for name in state[kind].keys() ^ mine.keys())
        if odd:
            listed = ", ".join(odd[:3])
            raise CheckpointError(f"the stored masks belong to another model or other settings: {listed}")
        for kind, mine in kinds:
            for name, bits in state[kind].items():
                mine[name].copy_(unpack(bits, mine[name]))
