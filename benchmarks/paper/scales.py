"""Scales: how much of the paper's trainings a machine can afford. A scale turns each recipe into a smaller one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from chase.benchmarks.paper.blocks import base_epochs
from chase.data.known import Extent, extent
from chase.data.split import num_batches
from chase.recipe import Recipe, override
from chase.registry import Registry
from chase.settings import DataSettings, ModelSettings, ScheduleSettings
from chase.sparse.method import Method

Model = Callable[[Extent], ModelSettings]
SILENT = ("name", "about", "training.seed", "training.teacher", "training.start_from")
"""What may differ without being worth a word."""


def same(name: str, **settings: Any) -> Model:
    """A model with the same settings on any data."""
    return lambda size: ModelSettings(name=name, settings=settings)


def small_vit(embed_dim: int, num_heads: int) -> Model:
    """timm's ViT-Small with nine blocks of another width, four patches a side."""

    def sized(size: Extent) -> ModelSettings:
        side = size.input_shape[1]
        own = {"img_size": side, "patch_size": max(1, side // 4)}
        settings = {**own, "embed_dim": embed_dim, "depth": 9, "num_heads": num_heads}
        return ModelSettings(name="timm:vit_small_patch16_224", settings=settings)

    return sized


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What stands for what. None, or a model that is not named, leaves the paper's.

    models: by the name of the paper's model, the one in its place.
    data: the data set in place of every other.
    batch_size: images a step; the learning rate follows in proportion.
    epochs: of a training that is ordinary in the paper (160 on CIFAR, 100 on ImageNet); longer ones stay longer in
        proportion, and what is counted in steps or epochs shrinks with them, but for intervals below `least_interval`.
    sparsity: in place of every sparsity but 0.
    amp: the precision of the training.
    seeds: how often each training is run.
    seconds: for how long an artifact is timed.
    assignments: key=value, in every recipe.
    """

    about: str
    models: Mapping[str, Model] = field(default_factory=dict)
    data: DataSettings | None = None
    batch_size: int | None = None
    epochs: int | None = None
    least_interval: int = 1
    sparsity: float | None = None
    amp: str | None = None
    seeds: tuple[int, ...] = (0,)
    seconds: float = 3.0
    assignments: tuple[str, ...] = ()

    def recipe(self, paper: Recipe) -> Recipe:
        """The recipe at this scale."""
        data = self._data(paper.data)
        if self.epochs is None:
            epochs = paper.training.epochs
        else:
            epochs = max(1, round(self.epochs * paper.training.epochs / base_epochs(paper.data)))
        training = replace(paper.training, epochs=epochs, amp=self.amp or paper.training.amp)
        sized = replace(paper, data=data, training=training)
        model = self.models[paper.model.name](size_of(data)) if paper.model.name in self.models else paper.model
        ours = replace(
            sized,
            model=model,
            method=self._method(paper.method, _steps(sized) / _steps(paper), other=model != paper.model),
            optimizer=replace(paper.optimizer, lr=paper.optimizer.lr * data.batch_size / paper.data.batch_size),
            schedule=_schedule(paper.schedule, epochs / paper.training.epochs),
        )
        return Recipe.from_dict(override(ours.to_dict(), self.assignments), source="-o") if self.assignments else ours

    def _data(self, paper: DataSettings) -> DataSettings:
        given = self.data or paper
        size = self.batch_size or paper.batch_size
        return replace(given, batch_size=size, validation=paper.validation)

    def _method(self, method: Method, share: float, *, other: bool) -> Method:
        """The method for a run of `share` as many steps; `other` says that layers are not those of the paper."""
        intervals = {name: getattr(method, name) for name in ("update_every", "channel_every")}
        shorter = {name: max(self.least_interval, round(every * share)) for name, every in intervals.items() if every}
        return method.with_(
            **(shorter if share != 1 else {}),
            channel_offset=round(method.channel_offset * share),
            sparsity=self.sparsity if self.sparsity is not None and method.sparsity else method.sparsity,
            keep=() if other else method.keep,
        )


def size_of(data: DataSettings) -> Extent:
    """The extent of a data set, which is loaded once at most."""
    own = {"name": data.name, "root": data.root, "settings": data.settings}
    return _size(json.dumps(own, sort_keys=True))


@cache
def _size(settings: str) -> Extent:
    return extent(DataSettings(**json.loads(settings)))


def _steps(recipe: Recipe) -> int:
    return recipe.training.epochs * num_batches(size_of(recipe.data).train, recipe.data.batch_size, shuffled=True)


def _schedule(schedule: ScheduleSettings, share: float) -> ScheduleSettings:
    milestones = tuple(epoch * share for epoch in schedule.milestones)
    return replace(schedule, milestones=milestones, warmup_epochs=schedule.warmup_epochs * share)


def differences(paper: Recipe, ours: Recipe) -> dict[str, tuple[Any, Any]]:
    """Every setting that is not the paper's, as (the paper's, ours)."""
    theirs, here = (dict(_flat(recipe.to_dict())) for recipe in (paper, ours))
    return {
        key: (theirs.get(key), here.get(key))
        for key in dict.fromkeys([*theirs, *here])
        if key not in SILENT and theirs.get(key) != here.get(key)
    }


def _flat(blocks: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in blocks.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return pairs


_TINY = same("vgg8", width=0.125)
_RESIDUAL = same("cifar-resnet8")

SCALES: Registry[Scale] = Registry(
    "scale",
    {
        "smoke": Scale(
            about="everything once, on the embedded digits with tiny models; the numbers mean nothing",
            models={
                "vgg19": _TINY,
                "vgg16": _TINY,
                "resnet50": _RESIDUAL,
                **dict.fromkeys((f"cifar-resnet{depth}" for depth in (18, 20, 50)), _RESIDUAL),
                "mlp": same("mlp", hidden=[32, 32]),
                "timm:vit_small_patch16_224": small_vit(32, 2),
            },
            data=DataSettings(name="digits"),
            batch_size=64,
            epochs=1,
            least_interval=4,
            sparsity=0.8,
            amp="off",
            seconds=0.05,
        ),
        "small": Scale(
            about="real CIFAR-100, small models, five epochs: any table overnight on two cores",
            models={
                **dict.fromkeys(("vgg19", "vgg16"), same("vgg8", width=0.5)),
                **dict.fromkeys(("resnet50", "cifar-resnet18", "cifar-resnet50"), same("cifar-resnet20")),
                "timm:vit_small_patch16_224": small_vit(96, 3),
            },
            data=DataSettings(name="cifar100"),
            batch_size=128,
            epochs=5,
            amp="off",
        ),
        "full": Scale(about="the paper's own setting, recipes unchanged", seeds=(41, 42, 43)),
    },
)
