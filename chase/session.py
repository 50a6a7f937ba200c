"""Session: a training in progress."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chase import checkpoint, distributed
from chase.checkpoint import InputSpec
from chase.compaction import GRID, compactions
from chase.counting import Params, cost_of, masked_macs, parameters
from chase.data import Data, epoch_seed
from chase.epoch import Epoch, Watch
from chase.errors import ChaseError
from chase.evaluation import evaluate
from chase.models import build_for
from chase.optimizers import build_optimizer, learning_rate
from chase.preparation import distillation, labelled, samples, synchronised
from chase.pretrained import take_weights
from chase.recipe import Recipe
from chase.session_state import state_of
from chase.slimming.origin import Origin
from chase.slimming.tracer import groups_of
from chase.sparse.amenable import Amenable
from chase.sparse.plan import Event, stop_step
from chase.sparse.sparsifier import Sparsifier
from chase.sparse.update import mix
from chase.step import TrainingStep
from chase.tracing import trace
from chase.training_cost import TrainingCost

LOOK_EVERY = 100
"""Steps between two looks at the losses: each waits for the device."""


class Session:
    """A training in progress: everything that changes between two steps."""

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
        if settings.sync_batchnorm:
            self.model = synchronised(self.model, device)
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
            batch=labelled(recipe, self.train_split, device),
            cost=self.cost,
            seed=settings.seed,
        )
        self.sparsifier.observers.append(lambda event: self._compare())
        masks = self.sparsifier.masks
        distributed.copy_from_first_(masks.weights.values())  # GPUs may round saliency differently
        self.amenable, self.origin = Amenable(self.model, masks), Origin(self.model, masks)
        self.dense_widths = masks.widths()
        images = min(recipe.data.batch_size, len(self.train_split))
        self.training_cost = TrainingCost.watching(self.sparsifier, self.cost, batch_size=images)
        self.compactions = compactions(
            settings, recipe.method, self.steps, model=self.model, groups=masks.groups, cost=self.cost
        )
        teacher = distillation(settings, self.input, device)
        self.train_on = TrainingStep(self.model, self.optimizer, self.sparsifier, settings, device, teacher)
        self.samples = samples(data)
        self.epoch = self.batch = self.first_step = self.skipped = 0
        self.losses = torch.zeros(self.per_epoch, device=device)
        self.best: dict[str, Any] | None = None
        if distributed.rank():  # the same network everywhere, but not the same dropout
            torch.manual_seed(mix(settings.seed, distributed.rank()))

    @property
    def done(self) -> int:
        """Batches trained on so far."""
        return self.epoch * self.per_epoch + self.batch

    @property
    def settled(self) -> bool:
        """Whether sparsity and channel sparsity have reached their targets, so that the network may be kept."""
        return self.sparsifier.step >= stop_step(self.recipe.method, self.steps) or not self.sparsifier.events

    def rest_of_epoch(self, watch: Watch) -> Iterator[int]:
        """Train on the batches that are left of the epoch; yields `done` after each, when the session may be saved.

        Raises:
            ChaseError: if losses are not finite, or the masks of the processes differ.
        """
        self._started, self._before = time.perf_counter(), self.batch
        self.model.train()
        batches = self.train_split.batches(
            self.recipe.data.batch_size,
            device=self.device,
            shuffle_seed=epoch_seed(self.recipe.training.seed, self.epoch),
            augment=True,
            start=self.batch,
            shard=(distributed.rank(), distributed.processes()),
        )
        for x, y in batches:
            self._step(x, y)
            watch.on_step(self.done, self.steps)
            yield self.done

    def _step(self, x: Tensor, y: Tensor) -> None:
        rate, sparsifier = self._learning_rate(self.done), self.sparsifier
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        before = sparsifier.step
        self.losses[self.batch] = self.train_on(x, y)
        self.batch += 1
        if sparsifier.step > before and sparsifier.step in self.compactions:
            self.compact()
        if self.batch % LOOK_EVERY == 0:
            self.finite_losses()

    def _compare(self) -> None:
        """Make sure that all processes have decided alike."""
        if distributed.processes() > 1:
            distributed.check_same(f"the masks of step {self.sparsifier.step}", self.sparsifier.masks.digest())

    def compact(self) -> None:
        """Cut dead channels out of everything that trains; the training goes on as if they were masked."""
        self.optimizer.zero_grad(set_to_none=True)
        average = self.train_on.average
        self.sparsifier.compact(copies=[average.module] if average else [], round_to=GRID)
        self.training_cost.look_again()
        self.train_on.wrap()

    def finite_losses(self) -> Tensor:
        """The losses of the epoch's steps so far, the mean over processes; those of skipped steps are not finite.

        Raises:
            ChaseError: if more are not finite than may be skipped.
        """
        losses = distributed.mean(self.losses[: self.batch])
        bad = (~losses.isfinite()).nonzero().flatten().tolist()
        allowed = min(self.recipe.training.skip_nonfinite - self.skipped, self.per_epoch - 1)
        if len(bad) > allowed:
            raise ChaseError(
                f"the loss became {float(losses[bad[allowed]])} in step {self.done - self.batch + bad[allowed] + 1} "
                f"(epoch {self.epoch + 1}); lower optimizer.lr and train again"
            )
        return losses

    def finish_epoch(self) -> Epoch:
        """Close an epoch whose batches have all been trained on, and look at the validation split.

        Raises:
            ChaseError: if losses are not finite.
        """
        losses = self.finite_losses()
        finite, seconds = losses[losses.isfinite()], time.perf_counter() - self._started
        speed = (self.batch - self._before) * len(self.train_split) / self.per_epoch / seconds
        first, self.skipped = self.first_step, self.skipped + len(losses) - len(finite)
        self.epoch, self.batch = self.epoch + 1, 0
        if self.epoch == self.recipe.training.epochs:
            self.sparsifier.finish()
        self.training_cost.look_again()
        self.first_step = self.sparsifier.step
        return self._record(float(finite.mean()), first, speed)

    def _learning_rate(self, step: int) -> float:
        recipe = self.recipe
        epochs, lr = recipe.training.epochs, recipe.optimizer.lr
        return learning_rate(step, per_epoch=self.per_epoch, epochs=epochs, lr=lr, schedule=recipe.schedule)

    def _record(self, loss: float, first: int, speed: float) -> Epoch:
        sparsifier, masks, network = self.sparsifier, self.sparsifier.masks, self._network()
        events = [
            _described(sparsifier.events[s]) for s in range(first + 1, sparsifier.step + 1) if s in sparsifier.events
        ]
        distributed.copy_from_first_(network.buffers())
        accuracy = evaluate(network, self.validation, device=self.device) if len(self.validation) else None
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
            executed_macs=self.training_cost.executed,
        )

    def _network(self) -> nn.Module:
        """What is validated and kept: of an average a copy, since it remembers weights that left and may return."""
        if not self.train_on.average:
            return self.model
        network = copy.deepcopy(self.train_on.average.module)
        self.sparsifier.masks.apply_(network)
        return network

    def keep_if_best(self, epoch: Epoch) -> None:
        """Hold a copy of the network if it is the one to keep so far."""
        last = self.recipe.training.select == "last" or epoch.validation_accuracy is None
        if self.best is None or last or (epoch.validation_accuracy or 0) > self.best["facts"]["validation_accuracy"]:
            self.best = self._snapshot(epoch.validation_accuracy)

    def _snapshot(self, validation_accuracy: float | None) -> dict[str, Any]:
        """A copy of the network as it stands, at full size, with what is known of it."""
        masks, network = self.sparsifier.masks, self._network()
        stored = self.origin.parameters
        facts = {
            "epoch": self.epoch,
            "epochs": self.recipe.training.epochs,
            "validation_accuracy": validation_accuracy,
            "sparsity": masks.sparsity,
            "channel_sparsity": masks.channel_sparsity,
            "macs": masked_macs(self.cost, masks).to_dict(),
            "params": Params(parameters(network)[0], stored, stored).to_dict(),
        }
        state = self.origin.full_state(network.state_dict())
        return {"state_dict": state, "masks": self.origin.full_masks(), "facts": facts}

    def test_accuracy(self) -> float:
        """Of the kept network, on the test split, in percent."""
        assert self.best is not None, "the last epoch is always settled"
        last = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.origin.small_state(self.best["state_dict"]))
        accuracy = evaluate(self.model, self.data.test, device=self.device)
        self.model.load_state_dict(last)
        return accuracy

    def save(self, path: Path, **facts: Any) -> None:
        """Let the first process write the checkpoint: the network to keep, and the state of the training beside it.

        Raises:
            ChaseError: if losses are not finite, or the masks of the processes differ; nothing is written.
        """
        self._compare()  # Deep-R changes masks between events, and static masks have none
        state = state_of(self)
        kept = self.best or self._snapshot(None)
        if distributed.rank():
            return
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
            training=state,
        )


def _described(event: Event) -> dict[str, Any]:
    return {key: value for key, value in asdict(event).items() if value is not None}
