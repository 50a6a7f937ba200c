"""The blocks of a recipe, each checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chase.errors import RecipeError, UnknownName
from chase.registry import did_you_mean


def check_finite(name: str, value: object) -> None:
    """Refuse infinity and NaN in a setting, or anywhere inside a mapping or a list of them.

    Raises:
        RecipeError: naming the setting.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{name} must be a finite number, not {value}")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_finite(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_finite(name, inner)


def _positive(name: str, value: float, *, zero: bool = False) -> None:
    if not (value > 0 or (value == 0 and zero)):
        raise RecipeError(f"{name} must be {'at least' if zero else 'above'} 0, not {value}")


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UnknownName(f"{name}: nothing named {value!r}; {did_you_mean(value, known)}")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A model's name (see `chase.models`) and its constructor's other arguments."""

    name: str = "vgg8"
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_finite("model", vars(self))


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """A data set's name or path (see `chase.data`), batch size, and the share held out for validation in [0, 1)."""

    name: str = "digits"
    root: str | None = None
    batch_size: int = 64
    validation: float = 0.1
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_finite("data", vars(self))
        _positive("data.batch_size", self.batch_size)
        if not 0 <= self.validation < 1:
            raise RecipeError(f"data.validation must lie in [0, 1), not {self.validation}")


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """SGD or AdamW. `norm_decay=False` exempts norm parameters and biases from weight decay."""

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 5e-4
    norm_decay: bool = True

    def __post_init__(self) -> None:
        check_finite("optimizer", vars(self))
        _one_of("optimizer.name", self.name, ("sgd", "adamw"))
        _positive("optimizer.lr", self.lr)
        _positive("optimizer.weight_decay", self.weight_decay, zero=True)
        for name, value in (("momentum", self.momentum), ("betas", self.betas[0]), ("betas", self.betas[1])):
            if not 0 <= value < 1:
                raise RecipeError(f"optimizer.{name} must lie in [0, 1), not {value}")
        if self.nesterov and not self.momentum:
            raise RecipeError("optimizer.nesterov needs optimizer.momentum above 0")


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """The learning rate over the run: cosine (to 0), multistep (× gamma at each milestone epoch) or constant."""

    name: str = "cosine"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        check_finite("schedule", vars(self))
        _one_of("schedule.name", self.name, ("cosine", "multistep", "constant"))
        _positive("schedule.warmup_epochs", self.warmup_epochs, zero=True)
        for name, values in (("gamma", (self.gamma,)), ("milestones", self.milestones)):
            for value in values:
                _positive(f"schedule.{name}", value)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The loop.

    amp: precision of the forward pass (off, bf16, fp16).
    select: the epoch that is kept: best on the validation split, or the last.
    start_from: a checkpoint whose weights the training starts from, such as that of a dense training.
    teacher: a checkpoint to distil from; `distillation` is the share of the loss that its outputs have, at
        `temperature`.
    amenable_thresholds: each epoch records the shares of sparse amenable channels at them (paper Fig. 2).
    ema: decay per step of a moving average of the weights, which is then what is validated and kept; 0 for none.
    accumulate: parts that each batch is split into, one after the other, to save memory.
    compile: mode of `torch.compile` (default, reduce-overhead, max-autotune), or off.
    compact: when dead channels leave the training itself: auto (where it pays), off, or marks of channel sparsity.
    sync_batchnorm: take BatchNorm's statistics over all processes (GPUs only).
    skip_nonfinite: how many steps whose loss or gradients are not finite may be left out; one more stops the run.
    checkpoint_every, checkpoint_minutes: checkpoints within an epoch, after so many steps or minutes; 0 for none.
    """

    epochs: int = 30
    seed: int = 0
    label_smoothing: float = 0.0
    amp: str = "off"
    channels_last: bool = False
    clip_norm: float | None = None
    select: str = "best"
    dense_twin: bool = False
    start_from: str | None = None
    teacher: str | None = None
    distillation: float = 0.5
    temperature: float = 4.0
    amenable_thresholds: tuple[float, ...] = (0.0, 0.2, 0.3, 0.4)
    ema: float = 0.0
    accumulate: int = 1
    compile: str = "off"
    compact: str | tuple[float, ...] = "auto"
    sync_batchnorm: bool = False
    skip_nonfinite: int = 0
    checkpoint_every: int = 0
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        check_finite("training", vars(self))
        for name in ("epochs", "accumulate", "temperature"):
            _positive(f"training.{name}", getattr(self, name))
        for name in ("skip_nonfinite", "checkpoint_every", "checkpoint_minutes"):
            _positive(f"training.{name}", getattr(self, name), zero=True)
        _positive("training.clip_norm", 1.0 if self.clip_norm is None else self.clip_norm)
        if not 0 <= self.seed < 2**63:
            raise RecipeError(f"training.seed must lie in [0, 2⁶³), not {self.seed}")
        if not 0 <= self.distillation <= 1:
            raise RecipeError(f"training.distillation must lie in [0, 1], not {self.distillation}")
        for threshold in self.amenable_thresholds:
            _positive("training.amenable_thresholds", threshold, zero=True)
        _one_of("training.amp", self.amp, ("off", "bf16", "fp16"))
        _one_of("training.select", self.select, ("best", "last"))
        _one_of("training.compile", self.compile, ("off", "default", "reduce-overhead", "max-autotune"))
        for name in ("label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise RecipeError(f"training.{name} must lie in [0, 1), not {getattr(self, name)}")
        if isinstance(self.compact, str):
            _one_of("training.compact", self.compact, ("auto", "off"))
        elif not all(0 < mark < 1 for mark in self.compact):
            raise RecipeError(f"training.compact: marks of channel sparsity lie in (0, 1), not {self.compact}")
