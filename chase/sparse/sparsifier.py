"""The Sparsifier: a method at work on one model and optimizer. The only object here that changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from chase.errors import CheckpointError, RecipeError
from chase.slimming.groups import Group
from chase.slimming.live import compact
from chase.slimming.widths import Grid
from chase.sparse.channels import AGGREGATES, CHANNEL_SCORES, group_scores, select_channels
from chase.sparse.masks import maskable
from chase.sparse.methods import Event, Method, plan, stop_step
from chase.sparse.scores import SCORES
from chase.sparse.start import floors, initial_masks
from chase.sparse.update import count_ones, grow, mix, prune

log = logging.getLogger(__name__)
PRUNE, GROW = 1, 2  # streams of random numbers


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel, DataParallel or `torch.compile`; wrappers own no parameters."""
    for attribute in ("module", "_orig_mod"):
        inner = getattr(model, attribute, None)
        if isinstance(inner, nn.Module) and len([*inner.parameters()]) == len([*model.parameters()]):
            return unwrap(inner)
    return model


class Sparsifier:
    """Keeps a model sparse while any training loop trains it.

    Making one masks the model's weights; from then on `optimizer.step()` masks gradients, and prunes, grows and
    removes channels at the steps of the method's plan. On all other steps it costs one multiplication of the
    gradients and no host sync. Randomness is a function of (seed, step, layer), so it needs no state.

    Args:
        model: the network on the device that it is trained on, also wrapped in DDP or `torch.compile`; its weights
            are changed in place.
        optimizer: any torch optimizer over its parameters that updates each element by itself (SGD, Adam, AdamW, …).
        method: `Chase(...)`, `RigL(...)`, … or any `Method`.
        steps: optimizer steps of the whole training.
        example: one input [1, ...]; needed where channel_sparsity > 0, to trace which channels belong together.
        groups: channel groups that are known already, instead of tracing.
        seed: of the initial masks and of random growth; the same on all processes.

    Raises:
        RecipeError: for settings that cannot be met, with the nearest that can.
        TraceError: if the model cannot be traced.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        method: Method,
        *,
        steps: int,
        example: Tensor | None = None,
        groups: tuple[Group, ...] | None = None,
        seed: int = 0,
    ) -> None:
        if steps < 1:
            raise RecipeError(f"steps must be at least 1, not {steps}")
        self.model, self.optimizer, self.method, self.seed = unwrap(model), optimizer, method, seed
        self.step, self.steps = 0, steps
        self.events = {event.step: event for event in plan(method, steps)}
        self.masks = initial_masks(self.model, method, example=example, groups=groups, seed=seed)
        self._floors = floors(self.masks.groups, method)
        self._weights = maskable(self.model)
        self._dense_gradients: dict[str, Tensor] = {}
        self._stashed = False
        self._refresh()
        self.masks.apply_(self.model)
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def detach(self) -> None:
        """Stop watching the optimizer; the masks stay as they are."""
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def finish(self) -> None:
        """Meet the targets now, at the end of a training whose `GradScaler` skipped steps, so that the plan's last
        event was not reached; otherwise nothing happens."""
        last = stop_step(self.method, self.steps)
        if self.step < last and last in self.events:
            self.step = last
            self._run(self.events[last])

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zero the gradients of everything masked. `optimizer.step()` does it by itself; call it before gradient
        clipping, so that the norm is that of the sparse network."""
        self._stash()
        self._multiply()
        self._stashed = True

    def compact(self, *, copies: Iterable[nn.Module] = (), round_to: Grid = 1) -> dict[str, Tensor]:
        """Cut the dead channels out of the model, its optimizer's state and `copies` of it, in place.

        Call it between two steps; the training goes on as if they were still masked. See `chase.slimming.compact`
        for what it returns and raises.
        """
        if self._stashed:
            raise RecipeError("compact() lies between mask_gradients() and step(); call it after the step")
        kept = compact(self.model, self.masks, self.optimizer, copies=copies, round_to=round_to)
        self._weights = maskable(self.model)
        self._refresh()
        return kept

    def _stash(self) -> None:
        """Keep the dense gradients that the coming event will need."""
        coming = self.events.get(self.step + 1)
        if coming is not None and coming.density is not None:
            grads = {name: weight.grad for name, weight in self._weights.items()}
            self._dense_gradients = {name: grad.clone() for name, grad in grads.items() if grad is not None}

    def _multiply(self) -> None:
        pairs = [(parameter.grad, mask) for parameter, mask in self._pairs if parameter.grad is not None]
        if pairs:
            gradients, masks = zip(*pairs, strict=True)
            torch._foreach_mul_(gradients, masks)

    def state_dict(self) -> dict[str, Any]:
        """The step and the packed masks; everything else follows from the method, the seed and the model."""
        return {"step": self.step, "seed": self.seed, "masks": self.masks.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; load the model and the optimizer as well.

        Raises:
            CheckpointError: if the state belongs to another model or seed.
        """
        if state["seed"] != self.seed:
            raise CheckpointError(f"the stored masks were drawn with seed {state['seed']}, not {self.seed}")
        self.step = state["step"]
        self.masks.load_state_dict(state["masks"])
        self._refresh()

    def _refresh(self) -> None:
        """List what an ordinary step multiplies: (parameter, mask), for all that has anything masked."""
        parameters = dict(self.model.named_parameters())
        masks = (self.masks.weights if self.method.sparsity or self.masks.removed else {}) | self.masks.vectors(
            self.model
        )
        self._pairs = [(parameters[name], mask) for name, mask in masks.items()]

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        """Mask the gradients; where they are only made inside a closure, mask them there."""
        closure = kwargs.get("closure") or next((arg for arg in args[1:] if callable(arg)), None)
        if closure is None:
            self._mask_once()
            return None

        def masked_closure() -> Any:
            with torch.enable_grad():
                loss = closure()
            self._mask_once()
            return loss

        return args[:1], {"closure": masked_closure, **{k: v for k, v in kwargs.items() if k != "closure"}}

    @torch.no_grad()
    def _mask_once(self) -> None:
        """Mask again, since that is always safe; but gradients masked early are no longer dense."""
        if not self._stashed:
            self._stash()
        self._multiply()

    @torch.no_grad()
    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.step += 1
        self._stashed = False
        if (event := self.events.get(self.step)) is not None:
            self._run(event)
            self._dense_gradients = {}

    def _run(self, event: Event) -> None:
        """One event: channels, then pruning, then growth; then nothing masked holds a value or momentum."""
        shares = count_ones(self.masks.weights)
        if event.channel_sparsity is not None:
            self._remove_channels(event.channel_sparsity)
        if event.keep is not None and event.density is not None:
            self._prune(round(event.keep * self.masks.total))
            self._grow(round(event.density * self.masks.total), shares)
        self._refresh()
        self._silence()

    def _remove_channels(self, target: float) -> None:
        method, masks, weights = self.method, self.masks, dict(self.model.named_parameters())
        criterion, aggregate = CHANNEL_SCORES[method.criterion], AGGREGATES[method.aggregate]
        scores = {
            group.name: group_scores(
                group, criterion, weights, masks.weights, aggregate=aggregate, shapes=masks.dense_shapes
            )
            for group in masks.groups
        }
        leaving = select_channels(
            masks.groups,
            scores,
            masks.alive,
            remove=round(target * masks.channels) - masks.removed,
            floors=self._floors,
            grid=method.round_to,
        )
        for name, units in leaving.items():
            masks.alive[name] &= ~units
        masks.bury()

    def _prune(self, keep: int) -> None:
        score_of = self._scorer(self.method.prune, PRUNE)
        self._take_over(prune(self.masks.weights, score_of, keep, scope=self.method.scope))

    def _grow(self, target: int, shares: Mapping[str, int]) -> None:
        masks = self.masks
        score_of, add = self._scorer(self.method.grow, GROW), target - masks.nonzero
        targets = shares if self.method.scope == "layer" else None
        self._take_over(grow(masks.weights, score_of, add, allowed=masks.allowed, shares=targets))
        if masks.nonzero < target:
            log.warning("step %d: the living channels hold %d of %d weights", self.step, masks.nonzero, target)

    def _take_over(self, masks: Mapping[str, Tensor]) -> None:
        """Change the masks in place: they keep their memory and its layout, as compiled steps expect."""
        for name, mask in masks.items():
            self.masks.weights[name].copy_(mask)

    def _scorer(self, name: str, stream: int) -> Callable[[str], Tensor]:
        score, order = SCORES[name], {layer: index for index, layer in enumerate(self._weights)}

        def score_of(layer: str) -> Tensor:
            weight = self._weights[layer].detach()
            gradient = self._dense_gradients.get(layer)
            generator = torch.Generator().manual_seed(mix(self.seed, self.step, stream, order[layer]))
            return score(weight, torch.zeros_like(weight) if gradient is None else gradient, generator)

        return score_of

    def _silence(self) -> None:
        """Zero whatever is masked: parameters, and optimizer state of the same shape."""
        for parameter, mask in self._pairs:
            parameter.mul_(mask)
            for value in self.optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.mul_(mask)
