"""Models by name: ours, `torchvision:resnet34`, `timm:resnet34`, and the user's `package.module:function`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from chase.errors import RecipeError, UnknownName, reason
from chase.models import resnet, vgg
from chase.models.foreign import imported, timm_model, timm_names, torchvision_model, torchvision_names
from chase.models.mlp import MLP
from chase.registry import Registry, did_you_mean

MODELS: Registry[Callable[..., Any]] = Registry(
    "model",
    {
        "vgg8": vgg.vgg8,
        "vgg16": vgg.vgg16,
        "vgg19": vgg.vgg19,
        "cifar-resnet8": resnet.cifar_resnet8,
        "cifar-resnet18": resnet.cifar_resnet18,
        "cifar-resnet20": resnet.cifar_resnet20,
        "cifar-resnet32": resnet.cifar_resnet32,
        "cifar-resnet34": resnet.cifar_resnet34,
        "cifar-resnet50": resnet.cifar_resnet50,
        "mlp": MLP,
    },
)

FOREIGN: dict[str, tuple[Callable[..., Any], Callable[[], list[str]]]] = {
    "torchvision": (torchvision_model, torchvision_names),
    "timm": (timm_model, timm_names),
}
"""Libraries of models, by the prefix of their names: how to build a model, and the names there are."""


def build(name: str, **settings: Any) -> nn.Module:
    """The model `name` with fresh weights; `settings` (num_classes, in_channels, …) go to its constructor.

    A bare name is looked up in MODELS, then among torchvision's classifiers.

    Raises:
        UnknownName: if no model has this name.
        RecipeError: if user code fails to import, a setting is refused, or the result is no module.
    """
    constructor = _constructor(name)
    try:
        model = constructor(**settings)
    except RecipeError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise RecipeError(f"cannot build model {name!r}: {reason(error)}; change its settings") from error
    if not isinstance(model, nn.Module):
        raise RecipeError(f"model {name!r} returned a {type(model).__name__}; it must return a torch.nn.Module")
    return model


def build_for(
    name: str, input_shape: tuple[int, int, int], classes: int, settings: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """A model that fits a data set, and the {"name", "settings"} that build it again.

    Of `num_classes`, `in_channels` and `side` (the image's height), the constructor is given those that it takes and
    that `settings` do not name.

    Raises:
        As `build`.
    """
    offered = {"num_classes": classes, "in_channels": input_shape[0], "side": input_shape[1]}
    constructor = _constructor(name)
    try:
        taken = inspect.signature(constructor).parameters
    except ValueError as error:
        raise RecipeError(f"model {name!r} has no signature to read; wrap it in a function of num_classes") from error
    fitting = {key: value for key, value in offered.items() if key in taken}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        fitting["num_classes"] = classes
    chosen = {**fitting, **settings}
    return build(name, **chosen), {"name": name, "settings": chosen}


def _constructor(name: str) -> Callable[..., Any]:
    prefix, colon, rest = name.rpartition(":")
    if colon and prefix not in FOREIGN:
        return imported(name)
    if not colon:
        try:
            return MODELS[name]
        except UnknownName:
            pass  # torchvision may have it
    constructor, names = FOREIGN[prefix or "torchvision"]
    known = names()
    if rest not in known:
        ours = () if colon else MODELS
        raise UnknownName(f"no model named {name!r}; {did_you_mean(rest, [*ours, *known])}")
    return partial(constructor, rest)
