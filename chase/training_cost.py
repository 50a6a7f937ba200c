"""Training cost: the MACs of a whole training, in the three columns (paper Table 4, "Theoretical FLOPs (Train)").

By the convention of RigL (Evci et al. 2020) a step costs three forward passes per image: forward, gradient of the
inputs, gradient of the weights. A step whose gradients choose where weights grow needs those of all weights in living
channels, zeros included: with f_S MACs of the sparse network and f_D of the same one without zeros, 2 f_S + f_D. With
`gradient_momentum` every step costs that. The one batch that saliency is measured on is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from chase.counting import Cost, Macs, masked_macs
from chase.sparse.masks import Masks
from chase.sparse.method import Method
from chase.sparse.plan import Event
from chase.sparse.sparsifier import Sparsifier

PASSES = 3
"""Forward, gradient of the inputs, gradient of the weights."""


class TrainingCost:
    """Adds up the MACs of a training from its events: between two of them every step costs the same.

    *theoretical* credits every zero; *gpu_supported* is the dense arithmetic on the shapes as they stand, which is what
    a GPU executes: channels that are only masked are still computed, those that were cut out (`Sparsifier.compact`) are
    not; *dense* is a training of the dense network.

    Args:
        cost: of the dense network.
        masks: of the training, up to date whenever this is called.
        method: says whether weights grow by their gradients.
        batch_size: images of one step.
        step: gives the optimizer steps done so far.
    """

    def __init__(self, cost: Cost, masks: Masks, method: Method, *, batch_size: int, step: Callable[[], int]) -> None:
        self._cost, self._masks, self._method = cost, masks, method
        self._batch_size, self._step = batch_size, step
        self._counted, self._spent = 0, Macs(0, 0, 0)
        self._look()

    @classmethod
    def watching(cls, sparsifier: Sparsifier, cost: Cost, *, batch_size: int) -> TrainingCost:
        """The account of the training that a Sparsifier watches, told of each of its events."""
        found = cls(cost, sparsifier.masks, sparsifier.method, batch_size=batch_size, step=lambda: sparsifier.step)
        sparsifier.observers.append(found)
        return found

    def __call__(self, event: Event) -> None:
        """Take in an event of the plan, after which the masks are what they are now."""
        grows = event.density is not None and self._method.grow == "gradient"
        self._spent = self._until(event.step, dense_gradients=int(grows))
        self._counted = event.step
        self._look()

    def look_again(self) -> None:
        """Take in masks or shapes that changed without an event, as under Deep-R and by `Sparsifier.compact`."""
        self._spent, self._counted = self.total(), self._step()
        self._look()

    @property
    def executed(self) -> int:
        """MACs per image of a forward pass on the shapes as they stand."""
        return self._executed

    def total(self) -> Macs:
        """The MACs of all steps so far, for all their images."""
        return self._until(self._step())

    def state_dict(self) -> dict[str, Any]:
        """What continues the account, as plain data."""
        return {
            "steps": self._counted,
            "macs": self._spent.to_dict(),
            "now": self._now.to_dict(),
            "executed": self._executed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self._counted, self._spent = state["steps"], Macs(**state["macs"])
        self._now, self._executed = Macs(**state["now"]), int(state["executed"])  # masks may have moved since: Deep-R

    def _look(self) -> None:
        """Count what a forward pass costs from now on."""
        self._now = masked_macs(self._cost, self._masks)
        self._executed = self._cost.macs_of({name: mask.numel() for name, mask in self._masks.weights.items()})

    def _until(self, step: int, *, dense_gradients: int = 0) -> Macs:
        """The MACs up to a step; so many of the steps since the last change needed the gradients of all weights."""
        steps, now, spent = step - self._counted, self._now, self._spent
        more = (steps if self._method.gradient_momentum else dense_gradients) * (now.gpu_supported - now.theoretical)
        return Macs(
            theoretical=spent.theoretical + self._batch_size * (PASSES * steps * now.theoretical + more),
            gpu_supported=spent.gpu_supported + self._batch_size * PASSES * steps * self._executed,
            dense=spent.dense + self._batch_size * PASSES * steps * now.dense,
        )
