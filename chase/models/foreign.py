"""Models from elsewhere: torchvision's classifiers, timm's models and the user's own code."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from chase.errors import RecipeError
from chase.packages import require

# Both have an auxiliary head, which makes them answer with a tuple in training, and warn unless told how to
# initialise their weights.
_QUIET = dict.fromkeys(("googlenet", "inception_v3"), {"init_weights": False, "aux_logits": False})


def torchvision_names() -> list[str]:
    """The names of torchvision's ImageNet classifiers."""
    from torchvision import models

    names: list[str] = models.list_models(module=models)
    return names


def torchvision_model(name: str, in_channels: int = 3, **settings: Any) -> Any:
    """A torchvision classifier with random weights.

    Raises:
        RecipeError: if `in_channels` is not 3.
    """
    from torchvision import models

    if in_channels != 3:
        raise RecipeError(f"torchvision's {name} takes 3 channels, not {in_channels}; use one of Chase's own models")
    return models.get_model(name, weights=None, **{**_QUIET.get(name, {}), **settings})


def timm_names() -> list[str]:
    """The names of timm's models, without the tags of their pretrained weights.

    Raises:
        MissingDependency: if timm is not installed.
    """
    names: list[str] = _timm().list_models()
    return names


def timm_model(name: str, in_channels: int = 3, **settings: Any) -> Any:
    """A timm model, with random weights unless `settings` say pretrained=True.

    Raises:
        MissingDependency: if timm is not installed.
        ValueError: if timm refuses a setting.
    """
    try:
        return _timm().create_model(name, in_chans=in_channels, **settings)
    except (AssertionError, OSError, RuntimeError) as error:  # its own checks, and a failed download
        raise ValueError(str(error) or type(error).__name__) from error


def _timm() -> Any:
    return require("timm", purpose="a model named timm:…", install="timm")


@contextlib.contextmanager
def current_directory_importable() -> Iterator[None]:
    """Modules in the current directory can be imported inside the block, as under `python -m`."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the imported module may have taken it out itself
            sys.path.remove(here)


def imported(name: str) -> Callable[..., Any]:
    """The callable behind `package.module:function`.

    Raises:
        RecipeError: if the module fails to import, lacks the function, or it cannot be called.
    """
    module, _, attribute = name.partition(":")
    try:
        with current_directory_importable():
            found = getattr(importlib.import_module(module), attribute)
    except AttributeError as error:
        raise RecipeError(f"model {name!r}: {error}; write package.module:function") from error
    # The user's module may fail in any way while it is imported.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise RecipeError(f"model {name!r}: cannot import {module!r} ({reason}); is it here or installed?") from error
    if not callable(found):
        raise RecipeError(f"model {name!r} is a {type(found).__name__}; name a function that returns the model")
    return found  # type: ignore[no-any-return]
