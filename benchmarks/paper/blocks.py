"""The blocks that the recipes of all tables are made from: the paper's own recipes with another method in them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from chase.benchmarks.paper.table import Training
from chase.recipe import Recipe, read
from chase.settings import DataSettings, ModelSettings
from chase.sparse.methods import make

CIFAR = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100"}
"""The paper's names of data sets, and ours."""

SPARSITY = {"80 %": 0.8, "90 %": 0.9, "95 %": 0.95, "98 %": 0.98}
"""The paper's levels of sparsity as numbers."""

CHANNELS = ("channel_every", "min_channel_ratio", "round_to", "keep")
EXPLORATION = ("update_every", "stop")
BASE_EPOCHS = {"imagenet": 100}
"""Epochs of an ordinary training in the paper, by data set; 160 on all others."""


@cache
def shipped(name: str) -> Recipe:
    """A recipe of `chase.recipes`: the paper's Tables 9 to 11."""
    return Recipe.from_dict(read(name), source=name)


def cifar(model: str, data: str) -> Recipe:
    """The recipe of Table 9 for a model; those that it lacks are trained as its ResNet-50 is, VGG-16 as its VGG-19."""
    name = CIFAR[data]
    if model in ("VGG-19", "ResNet-50"):
        return shipped(f"{name}-{model.replace('-', '').lower()}")
    like = shipped(f"{name}-{'vgg19' if model == 'VGG-16' else 'resnet50'}")
    ours = {
        "VGG-16": "vgg16",
        "ResNet-18": "cifar-resnet18",
        "ResNet-20": "cifar-resnet20",
        "ResNet-32": "cifar-resnet32",
        "MLP": "mlp",
    }[model]
    return replace(like, model=ModelSettings(name=ours), method=like.method.with_(keep=()))


def imagenet(longer: bool = False) -> Recipe:
    """The recipe of Table 10 for 100 epochs, or for 150."""
    return shipped("imagenet-resnet50-1.5x" if longer else "imagenet-resnet50")


def vit() -> Recipe:
    """ViT-Small on ImageNet (Table 14), of whose training the paper says nothing: AdamW with warm-up, as is usual."""
    like = imagenet()
    return replace(
        like,
        model=ModelSettings(name="timm:vit_small_patch16_224"),
        optimizer=replace(like.optimizer, name="adamw", lr=5e-4, weight_decay=0.05),
    )


def trained_by(recipe: Recipe, name: str, **settings: Any) -> Training:
    """The recipe with the method `name` in place of its own, and some settings of that changed.

    Chase and its variants take from the recipe when they explore, and when channels leave and how many stay at least;
    methods that it is added to (+GACP) all but how often they explore; others what they need to lose channels.
    """
    own: tuple[str, ...] = ()
    if name.startswith("chase"):
        own = (*CHANNELS, *EXPLORATION)
    elif name.endswith("-gacp"):
        own = (*CHANNELS, "stop")
    elif make(name, **settings).prunes_channels:
        own = CHANNELS
    paper = {each: getattr(recipe.method, each) for each in own}
    return Training(recipe=replace(recipe, method=make(name, **{**paper, **settings})))


def chase(recipe: Recipe, **settings: Any) -> Training:
    """The recipe with some settings of its own method changed."""
    return Training(recipe=replace(recipe, method=recipe.method.with_(**settings)))


def base_epochs(data: DataSettings) -> int:
    """Epochs of an ordinary training on this data in the paper; Table 4's 1.5× has half as many again."""
    return BASE_EPOCHS.get(data.name, 160)
