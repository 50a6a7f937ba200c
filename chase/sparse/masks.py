"""Masks: which weights and which channels live.

Weight masks are float tensors of {0, 1}, of each weight's own dtype, device and layout, since multiplying gradients
by them is what an ordinary step pays for. Channel masks are bool vectors over the units of a group. On disk both are
packed to bits.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chase.errors import CheckpointError
from chase.slimming.groups import Group, Slice
from chase.slimming.surgery import Cuts, narrowed, trimmed
from chase.slimming.units import Block
from chase.sparse.update import count_ones

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


def _by_tensor(groups: Iterable[Group]) -> dict[str, list[tuple[str, Slice]]]:
    """The slices of each tensor, with the group that each belongs to."""
    slices: dict[str, list[tuple[str, Slice]]] = {}
    for group in groups:
        for part in group.slices:
            slices.setdefault(part.tensor, []).append((group.name, part))
    return slices


def fill(tensor: Tensor, part: Slice, positions: Tensor, value: float) -> None:
    """Set positions of a slice of `tensor` to `value`, in place."""
    rows = part.block.rows(tensor) if part.block else tensor
    rows.index_fill_(part.dim, positions.to(tensor.device), value)


class Masks:
    """The masks of one model.

    `weights` maps the name of a maskable weight to its mask; `alive` maps the name of each prunable group to a bool
    vector [size] on the CPU; `groups` are the prunable groups; `parameters` are the names of all parameters, since
    buffers are not masked. `total` and `channels` are the maskable weights and prunable channels of the dense model;
    `dense_shapes` holds the shapes of the dense model's weights where channels have been cut out since, and `units` the
    numbers (int64 [size]) that the units of each group had in the dense model.
    """

    def __init__(
        self, weights: dict[str, Tensor], groups: Iterable[Group] = (), parameters: Iterable[str] = ()
    ) -> None:
        self.weights = weights
        self.groups = tuple(groups)
        self.parameters = {*weights, *parameters}
        self.alive = {group.name: torch.ones(group.size, dtype=torch.bool) for group in self.groups}
        self.units = {group.name: torch.arange(group.size) for group in self.groups}
        self.total = sum(mask.numel() for mask in weights.values())
        self.channels = sum(group.size for group in self.groups)
        self.dense_shapes: dict[str, tuple[int, ...]] = {}
        self._slices = _by_tensor(self.groups)

    @classmethod
    def dense(cls, model: nn.Module, groups: Iterable[Group] = ()) -> Masks:
        """Masks under which everything lives."""
        weights = {name: torch.ones_like(weight, requires_grad=False) for name, weight in maskable(model).items()}
        return cls(weights, groups, (name for name, _ in model.named_parameters()))

    def clone(self) -> Masks:
        """The same masks, to be changed apart from these."""
        other = copy.copy(self)
        other.weights = {name: mask.clone() for name, mask in self.weights.items()}
        other.alive = {name: alive.clone() for name, alive in self.alive.items()}
        other.dense_shapes = dict(self.dense_shapes)
        return other

    @property
    def nonzero(self) -> int:
        """Weights that live."""
        return sum(count_ones(self.weights).values())

    @property
    def sparsity(self) -> float:
        """1 − nonzero / total, over the maskable weights of the dense model."""
        return 1 - self.nonzero / self.total

    @property
    def removed(self) -> int:
        """Channels that are dead."""
        return self.channels - sum(int(alive.sum()) for alive in self.alive.values())

    @property
    def channel_sparsity(self) -> float:
        """Removed channels over prunable channels; 0 where none is prunable."""
        return self.removed / self.channels if self.channels else 0.0

    def dead_slices(self, tensor: str) -> Iterator[tuple[Slice, Tensor]]:
        """Each slice of a tensor that lost channels, with the positions that died."""
        for name, part in self._slices.get(tensor, ()):
            gone = part.positions[~self.alive[name][part.units]]
            if len(gone):
                yield part, gone

    def bury(self) -> None:
        """Mask every weight that belongs to a dead channel: its producer's row and its consumers' columns."""
        for name, mask in self.weights.items():
            for part, positions in self.dead_slices(name):
                fill(mask, part, positions, 0)

    def allowed(self, name: str) -> Tensor:
        """The entries of a weight whose channels live, bool of the weight's shape."""
        return self._without_dead(name, torch.ones_like(self.weights[name], dtype=torch.bool))

    def free(self, name: str) -> Tensor:
        """The masked entries of a weight whose channels live, which may grow: bool of the weight's shape."""
        return self._without_dead(name, self.weights[name].bool().logical_not_())

    def _without_dead(self, name: str, entries: Tensor) -> Tensor:
        for part, positions in self.dead_slices(name):
            fill(entries, part, positions, False)
        return entries

    def vectors(self, model: nn.Module) -> dict[str, Tensor]:
        """Masks of the other parameters that belong to dead channels (biases, γ, β, position embeddings), by name."""
        vectors: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            dead = [] if name in self.weights else list(self.dead_slices(name))
            if dead:
                vectors[name] = torch.ones_like(parameter, requires_grad=False)
                for part, positions in dead:
                    fill(vectors[name], part, positions, 0)
        return vectors

    def masked(self, name: str, tensor: Tensor) -> Tensor:
        """A parameter under its mask, and with everything silent that makes dead channels; itself where nothing is.

        Consumers' columns keep what their weight mask lets live: whatever arrives there has to be zero already.
        """
        mask = self.weights.get(name)
        if mask is None and not any(self._silent(name)):
            return tensor
        return self.silence_(name, tensor.clone() if mask is None else tensor * mask.to(tensor))

    def silence_(self, name: str, tensor: Tensor) -> Tensor:
        """`tensor`, with everything set to zero that makes dead channels in the parameter `name`."""
        for part, positions in self._silent(name):
            fill(tensor, part, positions, 0)
        return tensor

    def _silent(self, name: str) -> Iterator[tuple[Slice, Tensor]]:
        dead = self.dead_slices(name) if name in self.parameters else ()
        return (entry for entry in dead if not entry[0].reads)

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> None:
        """Set to zero, in place, whatever is masked in `model`."""
        for name, parameter in model.named_parameters():
            value = parameter.detach()
            masked = self.masked(name, value)
            if masked is not value:
                value.copy_(masked)

    def narrow(self, kept: Mapping[str, Tensor], lost: Cuts) -> None:
        """Follow a model that was cut: `kept` are the units [n] that each group keeps, `lost` what each tensor lost."""
        for name, mask in self.weights.items():
            self.dense_shapes.setdefault(name, tuple(mask.shape))
        self.weights = {name: trimmed(mask, lost.get(name, [])) for name, mask in self.weights.items()}
        self.alive = {name: alive[kept[name]] for name, alive in self.alive.items()}
        self.units = {name: units[kept[name]] for name, units in self.units.items()}
        self.groups = narrowed(self.groups, kept, lost)
        self._slices = _by_tensor(self.groups)

    def remaining(self, kept: Mapping[str, Tensor], lost: Cuts) -> Masks:
        """The groups that keep dead channels when the model is cut, as they are then; without weight masks."""
        alive = {group.name: self.alive[group.name][kept[group.name]] for group in self.groups}
        partial = tuple(group for group in self.groups if not alive[group.name].all())
        masks = Masks({}, narrowed(partial, kept, lost), self.parameters)
        masks.alive = {group.name: alive[group.name] for group in partial}
        return masks

    def widths(self) -> dict[str, int]:
        """Living channels per prunable group."""
        return {name: int(alive.sum()) for name, alive in self.alive.items()}

    def shapes_without(self, blocks: Iterable[tuple[str, Tensor]]) -> dict[str, tuple[int, ...]]:
        """`shapes`, once these units (group, int64 [n]) have died as well."""
        before = self.alive
        self.alive = {name: alive.clone() for name, alive in before.items()}
        for name, units in blocks:
            self.alive[name][units] = False
        found, self.alive = self.shapes(), before
        return found

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape each maskable weight has once its dead channels are cut out."""
        return {name: self._shape(name, list(mask.shape)) for name, mask in self.weights.items()}

    def _shape(self, name: str, sides: list[int]) -> tuple[int, ...]:
        lost: dict[int, dict[Block | None, int]] = {}
        for part, positions in self.dead_slices(name):
            of_dim = lost.setdefault(part.dim, {})
            of_dim[part.block] = of_dim.get(part.block, 0) + len(positions)
        for dim, of_dim in lost.items():
            count = next((block.count for block in of_dim if block), len(of_dim))
            sides[dim] -= min(of_dim.values()) if len(of_dim) == count else 0  # blocks stay as long as the longest
        return tuple(sides)

    def state_dict(self) -> dict[str, Any]:
        """Packed bits: {"weights": {name: uint8}, "alive": {group: uint8}}."""
        return {
            "weights": {name: pack(mask) for name, mask in self.weights.items()},
            "alive": {name: pack(alive) for name, alive in self.alive.items()},
        }

    def digest(self) -> str:
        """A hash of which weights and channels live, 16 hexadecimal digits."""
        content = hashlib.sha256()
        for kind in self.state_dict().values():
            for name, bits in sorted(kind.items()):
                content.update(name.encode() + bits.numpy().tobytes())
        return content.hexdigest()[:16]

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
