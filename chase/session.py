"""Session: a training in progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chase import checkpoint
from chase.checkpoint import InputSpec
from chase.counting import Params, cost_of, masked_macs, parameters
from chase.data import Data, Split, class_balanced, epoch_seed
from chase.distillation import Distillation, teacher_from
from chase.errors import ChaseError
from chase.models import build_for
from chase.optimizers import build_optimizer, learning_rate
from chase.pretrained import take_weights
from chase.recipe import Recipe, TrainingSettings
from chase.slimming.tracer import groups_of
from chase.sparse.amenable import Amenable
from chase.sparse.method import RANDOM
from chase.sparse.plan import Event, stop_step
from chase.sparse.saliency import Batch
from chase.sparse.sparsifier import Sparsifier
from chase.tracing import trace
from chase.training_cost import TrainingCost

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Epoch:
    """What one epoch did.

    Accuracies are top-1 in percent; `macs` has the three columns per image, `amenable` the shares of sparse amenable
    channels, {metric: {v: {layer: share}}}, and `group_sparsity` the removed share of each prunable group's channels.
    """

    epoch: int
    step: int
    lr: float
    loss: float
    validation_accuracy: float | None
    sparsity: float
    channel_sparsity: float
    macs: dict[str, int]
    events: list[dict[str, Any]]
    images_per_second: float
    amenable: dict[str, Any] = field(default_factory=dict)
    group_sparsity: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Watch:
    """What a caller wants to see while a training runs: after each step (done, all), and after each epoch."""

    on_step: Callable[[int, int], None] = lambda done, steps: None
    on_epoch: Callable[[Epoch], None] = lambda epoch: None


@torch.inference_mode()
def evaluate(model: nn.Module, split: Split, *, device: torch.device, batch_size: int = 256) -> float:
    """Top-1 accuracy in percent, in evaluation mode."""
    was_training = model.training
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    for x, y in split.batches(batch_size, device=device):
        right += (model(x).argmax(1) == y).sum()
    model.train(was_training)
    return 100 * int(right) / len(split)


class Session:
    """A training in progress: everything that changes between two epochs."""

    def __init__(self, recipe: Recipe, data: Data, device: torch.device) -> None:
        settings = recipe.training
        torch.manual_seed(settings.seed)
        self.recipe, self.data, self.device = recipe, data, device
        self.train_split, self.validation = data.held_out(recipe.data.validation, settings.seed)
        self.per_epoch = self.train_split.num_batches(recipe.data.batch_size, shuffled=True)
        self.steps = self.per_epoch * settings.epochs
        self.model, self.spec = build_for(recipe.model.name, data.input_shape, len(data.classes), recipe.model.settings)
        self.input = InputSpec(shape=data.input_shape, classes=data.classes, mean=data.mean, std=data.std)
        example = self.input.example()
        traced = trace(self.model, example)
        self.cost, groups = cost_of(traced), groups_of(self.model, traced, example, freedoms=recipe.method.freedoms)
        if settings.start_from is not None:
            take_weights(self.model, settings.start_from)
        self.distillation = _distillation(settings, self.input, device)
        layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.model.to(device, memory_format=layout)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.model, recipe.optimizer)
        self.sparsifier = Sparsifier(
            self.model,
            self.optimizer,
            recipe.method,
            steps=self.steps,
            example=example,
            groups=groups,
            batch=_labelled(recipe, self.train_split, device),
            cost=self.cost,
            seed=settings.seed,
        )
        self.amenable = Amenable(self.model, self.sparsifier.masks)
        self.dense_widths = {group.name: group.size for group in self.sparsifier.masks.groups}
        images = min(recipe.data.batch_size, len(self.train_split))
        self.training_cost = TrainingCost.watching(self.sparsifier, self.cost, batch_size=images)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16")
        self.loss = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
        self.samples = _samples(data)
        self.epoch = 0
        self.best: dict[str, Any] | None = None

    @property
    def settled(self) -> bool:
        """Whether sparsity and channel sparsity have reached their targets, so that the network may be kept."""
        return self.sparsifier.step >= stop_step(self.recipe.method, self.steps) or not self.sparsifier.events

    def run_epoch(self, watch: Watch) -> Epoch:
        """Train one epoch and look at the validation split.

        Raises:
            ChaseError: if the loss is no longer finite.
        """
        settings, start, first = self.recipe.training, time.perf_counter(), self.sparsifier.step
        self.model.train()
        total = torch.zeros((), device=self.device)
        seed = epoch_seed(settings.seed, self.epoch)
        batches = self.train_split.batches(
            self.recipe.data.batch_size, device=self.device, shuffle_seed=seed, augment=True
        )
        for index, (x, y) in enumerate(batches):
            total += self._step(self.epoch * self.per_epoch + index, x, y)
            watch.on_step(self.epoch * self.per_epoch + index + 1, self.steps)
        loss = float(total) / self.per_epoch
        seconds = time.perf_counter() - start
        self.epoch += 1
        if self.epoch == settings.epochs:
            self.sparsifier.finish()
        self.training_cost.look_again()
        if not math.isfinite(loss):
            raise ChaseError(f"the loss became {loss} in epoch {self.epoch}; lower optimizer.lr and train again")
        return self._record(loss, first, len(self.train_split) / seconds)

    def _step(self, step: int, x: Tensor, y: Tensor) -> Tensor:
        settings = self.recipe.training
        rate = self._learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if settings.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, AMP.get(settings.amp), enabled=settings.amp != "off"):
            logits = self.model(x)
            loss: Tensor = self.loss(logits, y)
            if self.distillation is not None:
                loss = self.distillation(loss, logits, x)
        self.scaler.scale(loss).backward()
        if settings.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            self.sparsifier.mask_gradients()
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def _learning_rate(self, step: int) -> float:
        recipe = self.recipe
        epochs, lr = recipe.training.epochs, recipe.optimizer.lr
        return learning_rate(step, per_epoch=self.per_epoch, epochs=epochs, lr=lr, schedule=recipe.schedule)

    def _record(self, loss: float, first: int, speed: float) -> Epoch:
        sparsifier, masks = self.sparsifier, self.sparsifier.masks
        events = [
            _described(sparsifier.events[s]) for s in range(first + 1, sparsifier.step + 1) if s in sparsifier.events
        ]
        accuracy = evaluate(self.model, self.validation, device=self.device) if len(self.validation) else None
        sparse = self.recipe.method.masks_weights or self.recipe.method.prunes_channels
        return Epoch(
            epoch=self.epoch,
            step=sparsifier.step,
            lr=self._learning_rate(max(0, sparsifier.step - 1)),
            loss=loss,
            validation_accuracy=accuracy,
            sparsity=masks.sparsity,
            channel_sparsity=masks.channel_sparsity,
            macs=masked_macs(self.cost, masks).to_dict(),
            events=events,
            images_per_second=speed,
            amenable=self.amenable.record(self.recipe.training.amenable_thresholds if sparse else ()),
            group_sparsity={name: 1 - width / self.dense_widths[name] for name, width in masks.widths().items()},
        )

    def keep_if_best(self, epoch: Epoch) -> None:
        """Hold a copy of the network if it is the one to keep so far."""
        last = self.recipe.training.select == "last" or epoch.validation_accuracy is None
        if self.best is None or last or (epoch.validation_accuracy or 0) > self.best["facts"]["validation_accuracy"]:
            self.best = self._snapshot(epoch.validation_accuracy)

    def _snapshot(self, validation_accuracy: float | None) -> dict[str, Any]:
        """A copy of the network as it stands, with what is known of it."""
        masks = self.sparsifier.masks
        state = {key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()}
        nonzero, stored = parameters(self.model)
        facts = {
            "epoch": self.epoch,
            "epochs": self.recipe.training.epochs,
            "validation_accuracy": validation_accuracy,
            "sparsity": masks.sparsity,
            "channel_sparsity": masks.channel_sparsity,
            "macs": masked_macs(self.cost, masks).to_dict(),
            "params": Params(nonzero, stored, stored).to_dict(),
        }
        return {"state_dict": state, "masks": masks.state_dict(), "facts": facts}

    def state_dict(self) -> dict[str, Any]:
        """All that continues the training, as plain data and tensors."""
        cuda = torch.cuda.get_rng_state_all() if self.device.type == "cuda" else []
        return {
            "epoch": self.epoch,
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "sparsifier": self.sparsifier.state_dict(),
            "amenable": self.amenable.state_dict(),
            "training_cost": self.training_cost.state_dict(),
            "rng": {"cpu": torch.get_rng_state(), "cuda": cuda},
            "best": self.best,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["state_dict"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.sparsifier.load_state_dict(state["sparsifier"])
        self.amenable.load_state_dict(state["amenable"])
        self.training_cost.load_state_dict(state["training_cost"])
        self.best = state["best"]
        torch.set_rng_state(state["rng"]["cpu"])
        if self.device.type == "cuda" and state["rng"]["cuda"]:
            torch.cuda.set_rng_state_all(state["rng"]["cuda"])

    def save(self, path: Path, **facts: Any) -> None:
        """Write the checkpoint: the network to keep, and the state of the training beside it."""
        kept = self.best or self._snapshot(None)
        checkpoint.save(
            path,
            kind="dense" if self.recipe.method.name == "dense" else "masked",
            model=self.spec,
            network=self.model,
            recipe=self.recipe.to_dict(),
            input=self.input,
            widths=None,
            state_dict=kept["state_dict"],
            masks=kept["masks"],
            samples=self.samples,
            facts={
                **kept["facts"],
                "complete": self.epoch == self.recipe.training.epochs,
                "training_macs": self.training_cost.total().to_dict(),
                **facts,
            },
            training=self.state_dict(),
        )


def _labelled(recipe: Recipe, split: Split, device: torch.device) -> Batch | None:
    """Ten training images of each class, which initial masks by saliency are measured on."""
    if recipe.method.initial == RANDOM:
        return None
    return Batch(*class_balanced(split, seed=recipe.training.seed, device=device))


def _distillation(settings: TrainingSettings, input: InputSpec, device: torch.device) -> Distillation | None:
    """The loss by the teacher, if there is one."""
    if settings.teacher is None:
        return None
    teacher = teacher_from(settings.teacher, classes=input.classes, shape=input.shape)
    return Distillation(teacher, alpha=settings.distillation, temperature=settings.temperature).to(device)


def _samples(data: Data) -> Tensor:
    """A few real inputs that travel with the network, so that later stages can prove themselves on them."""
    few = 16 if max(data.input_shape[1:]) <= 64 else 4
    images, _ = next(data.test.subset(torch.arange(min(few, len(data.test)))).batches(few))
    return images


def _described(event: Event) -> dict[str, Any]:
    return {key: value for key, value in asdict(event).items() if value is not None}
