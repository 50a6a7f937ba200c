"""The Sparsifier: a method at work on one model and optimizer. The only object here that changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from chase.errors import CheckpointError, RecipeError
from chase.slimming.groups import Group
from chase.slimming.live import compact
from chase.slimming.surgery import cuts
from chase.slimming.widths import Grid
from chase.sparse.explorer import Explorer
from chase.sparse.method import Method
from chase.sparse.plan import Event, plan, stop_step
from chase.sparse.pruner import Pruner
from chase.sparse.rewiring import Rewiring
from chase.sparse.saliency import Batch
from chase.sparse.start import check_macs, initial_masks, needed_cost
from chase.sparse.update import count_ones

if TYPE_CHECKING:
    from chase.counting import Cost


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
    gradients and no host sync (methods that look at every step's gradients cost more: Deep-R, SNFS, and the channel
    criteria taylor and group-fisher). Randomness is a function of (seed, step, layer), so it needs no state.

    A step that you capture in a CUDA graph masks as it should for as long as no more channels leave, since masks change
    in place. But a replay runs no hook: count `step` on by one after each, and where `step + 1` is among `events`, take
    the step without the graph.

    `observers` are called after each event, with the masks up to date.

    Args:
        model: the network on the device that it is trained on, also wrapped in DDP or `torch.compile`; its weights
            are changed in place.
        optimizer: any torch optimizer over its parameters that updates each element by itself (SGD, Adam, AdamW, …).
        method: `Chase(...)`, `RigL(...)`, … or any `Method`.
        steps: optimizer steps of the whole training.
        example: one input [1, ...]; needed where channels leave, to trace which belong together.
        groups: channel groups that are known already, instead of tracing.
        batch: images and labels that initial masks by saliency are measured on (snip, grasp).
        cost: what a forward pass costs, if it is known already; else traced where the method counts MACs.
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
        batch: Batch | None = None,
        cost: Cost | None = None,
        seed: int = 0,
    ) -> None:
        if steps < 1:
            raise RecipeError(f"steps must be at least 1, not {steps}")
        self.model, self.optimizer, self.method, self.seed = unwrap(model), optimizer, method, seed
        self.step, self.steps = 0, steps
        self.events = {event.step: event for event in plan(method, steps)}
        self.observers: list[Callable[[Event], None]] = []
        self.masks = initial_masks(self.model, method, example=example, groups=groups, batch=batch, seed=seed)
        cost = needed_cost(self.model, method, example, cost)
        check_macs(self.masks, method, cost)
        self._pruner = Pruner(self.model, method, self.masks, cost=cost, seed=seed)
        self._pruner.check()
        self._explorer = Explorer(self.model, method, self.masks, seed)
        self._rewiring = (
            Rewiring(self.model, optimizer, self.masks, method.rewire_l1, seed) if method.rewire_l1 else None
        )
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
        self._observe()
        self._multiply()
        self._stashed = True

    def compact(self, *, copies: Iterable[nn.Module] = (), round_to: Grid = 1) -> dict[str, Tensor]:
        """Cut the dead channels out of the model, its optimizer's state and `copies` of it, in place.

        Call it between two steps; the training goes on as if they were still masked, except that weights and channels
        which are drawn at random are other ones, since a draw has the shape of a weight. See `chase.slimming.compact`
        for what it returns and raises; channels that may still return (`channel_regrowth`) cannot be cut out.
        """
        if self._stashed:
            raise RecipeError("compact() lies between mask_gradients() and step(); call it after the step")
        if self.method.channel_regrowth and self.step < stop_step(self.method, self.steps):
            raise RecipeError("channels may still return (method.channel_regrowth); call compact() after τ_stop")
        groups = self.masks.groups
        kept = compact(self.model, self.masks, self.optimizer, copies=copies, round_to=round_to)
        self._explorer.attach(self.model, cuts(groups, kept))
        self._pruner.narrow(kept)
        if self._rewiring is not None:
            self._rewiring.attach(self.model)
        self._refresh()
        return kept

    def _observe(self) -> None:
        """Take what the coming event, or a running average, needs of the dense gradients."""
        coming = self.events.get(self.step + 1)
        scale = getattr(self.optimizer, "grad_scale", None)  # a fused optimizer unscales by itself, after this
        scale = 1.0 if scale is None else scale
        self._explorer.observe(coming is not None and coming.density is not None, scale)
        self._pruner.observe(scale)
        if self._rewiring is not None:
            self._rewiring.before_step()

    def _multiply(self) -> None:
        pairs = [(parameter.grad, mask) for parameter, mask in self._pairs if parameter.grad is not None]
        if pairs:
            gradients, masks = zip(*pairs, strict=True)
            torch._foreach_mul_(gradients, masks)

    def state_dict(self) -> dict[str, Any]:
        """The step, the packed masks, and whatever the method gathers over steps; everything else follows from the
        method, the seed and the model."""
        gathered = {"pruner": self._pruner.state_dict(), "gradients": {}}
        if self.method.gradient_momentum:
            gathered["gradients"] = self._explorer.gradients
        return {"step": self.step, "seed": self.seed, "masks": self.masks.state_dict(), **gathered}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; load the model and the optimizer as well.

        Raises:
            CheckpointError: if the state belongs to another model or seed.
        """
        if state["seed"] != self.seed:
            raise CheckpointError(f"the stored masks were drawn with seed {state['seed']}, not {self.seed}")
        self.step = state["step"]
        self.masks.load_state_dict(state["masks"])
        self._pruner.load_state_dict(state["pruner"])
        self._explorer.gradients = {
            name: gradient.to(self._explorer.weights[name].device) for name, gradient in state["gradients"].items()
        }
        self._refresh()

    def _refresh(self) -> None:
        """List what an ordinary step multiplies: (parameter, mask), for all that has anything masked."""
        parameters = dict(self.model.named_parameters())
        masked = self.method.masks_weights or self.masks.removed
        masks = (self.masks.weights if masked else {}) | self.masks.vectors(self.model)
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
            self._observe()
        self._multiply()

    @torch.no_grad()
    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.step += 1
        self._stashed = False
        if self._rewiring is not None:
            retired = self._rewiring.retire(self.step)
            self._silence()  # before the draw, so that a weight drawn again at once starts without momentum
            self._rewiring.revive(retired, self.step)
        if (event := self.events.get(self.step)) is not None:
            self._run(event)

    def _run(self, event: Event) -> None:
        """One event: channels, then pruning, then growth; then nothing masked holds a value or momentum."""
        masks, explorer = self.masks, self._explorer
        before = count_ones(masks.weights)
        if event.removes_channels:
            self._pruner.run(event, self.step / stop_step(self.method, self.steps))
            if masks.nonzero > sum(before.values()):  # channels that returned brought their weights
                explorer.prune(sum(before.values()), event.step)
        if event.keep is not None and event.density is not None:
            explorer.prune(round(event.keep * masks.total), event.step)
            explorer.grow(round(event.density * masks.total), event.step, before)
        self._refresh()
        self._silence()
        for observer in self.observers:
            observer(event)

    def _silence(self) -> None:
        """Zero whatever is masked: parameters, and optimizer state of the same shape."""
        for parameter, mask in self._pairs:
            parameter.mul_(mask)
            for value in self.optimizer.state.get(parameter, {}).values():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    value.mul_(mask)
