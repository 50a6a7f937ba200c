"""Where the tensors of a network that is compacted while it trains stood in the one it began as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from chase.slimming.surgery import Cuts, cuts, tensors_of, without

if TYPE_CHECKING:
    from chase.sparse.masks import Masks


class Origin:
    """The full-size network of a training: its shapes and groups, of which `masks` knows what is left.

    What was cut out was zero, and zero wherever it is read, so that a network is full-size again, and computes the
    same, with zeros in the empty places.
    """

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        tensors, state = tensors_of(model), model.state_dict(keep_vars=True)
        names = {id(tensor): name for name, tensor in tensors.items()}
        self.names = {key: names.get(id(tensor), key) for key, tensor in state.items()}  # tied ones have several
        self.shapes = {name: tensor.shape for name, tensor in tensors.items()}
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.groups, self.masks = masks.groups, masks

    @property
    def lost(self) -> Cuts:
        """What each tensor has lost since the beginning."""
        return cuts(self.groups, self.masks.units)

    def full_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict of the full-size network, copied to the CPU."""
        lost = self.lost
        return {key: self._full(self.names[key], tensor, lost) for key, tensor in state.items()}

    def small_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a full-size state dict says of the network as it is now."""
        lost = self.lost
        return {key: without(tensor, lost.get(self.names[key], [])) for key, tensor in state.items()}

    def full_masks(self) -> dict[str, Any]:
        """The masks of the full-size network, packed as `Masks.state_dict` packs them."""
        from chase.sparse.masks import pack

        lost, masks = self.lost, self.masks
        alive = {group.name: torch.zeros(group.size, dtype=torch.bool) for group in self.groups}
        for name, units in masks.units.items():
            alive[name][units] = masks.alive[name]
        weights = {name: pack(self._full(name, mask, lost)) for name, mask in masks.weights.items()}
        return {"weights": weights, "alive": {name: pack(mask) for name, mask in alive.items()}}

    def _full(self, name: str, tensor: Tensor, lost: Cuts) -> Tensor:
        """`tensor` on the CPU, with zeros where something was cut out."""
        tensor = tensor.detach().cpu()
        if name not in lost:
            return tensor.clone()
        shape = self.shapes[name]
        places = without(torch.arange(shape.numel()).view(shape), lost[name])
        full = tensor.new_zeros(shape.numel())
        full[places.flatten()] = tensor.flatten()
        return full.view(shape)
