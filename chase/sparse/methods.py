"""The methods by name: each is a set of defaults over the same parts, so only the method differs in a comparison.

Static methods choose weights once; dynamic ones drop and grow. RigL is Chase without channels, with drop-then-grow
instead of a soft memory bound, layer by layer; SET is RigL that grows at random; DSR is SET that drops globally and
grows where weights survived; and so on. Channels may leave under any of them.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from chase.errors import RecipeError
from chase.registry import Registry, did_you_mean
from chase.sparse.method import Method

_STATIC: dict[str, Any] = {"update_every": 0, "soft_bound": 0.0}
_BY_LAYER: dict[str, Any] = {"scope": "layer", "allocation": "layer", "soft_bound": 0.0}
_RIGL: dict[str, Any] = {**_BY_LAYER, "update_every": 100, "stop": 0.75}
_SET: dict[str, Any] = {**_BY_LAYER, "grow": "random", "update_every": 100, "stop": 1.0}
_MEST: dict[str, Any] = {"scope": "layer", "allocation": "layer", "prune": "magnitude+gradient", "grow": "random"}
_HALF: dict[str, Any] = {"channel_sparsity": 0.5}

_CATALOG: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("every weight, all the way", {"sparsity": 0.0, "update_every": 0}),
    "static": ("random masks that never change, by erk, er or uniform densities (Liu et al. 2022)", _STATIC),
    "snip": ("static masks by connection sensitivity |g·w| (Lee et al. 2019)", {**_STATIC, "initial": "snip"}),
    "grasp": ("static masks that keep the gradient flowing (Wang et al. 2020)", {**_STATIC, "initial": "grasp"}),
    "synflow": ("static masks by synaptic flow, without data (Tanaka et al. 2020)", {**_STATIC, "initial": "synflow"}),
    "deep-r": (
        "signed weights on a walk; those that cross zero are replaced at random after every step (Bellec et al. 2018)",
        {**_STATIC, "rewire_l1": 1e-5, "stop": 1.0},
    ),
    "set": ("drop small weights, grow at random, layer by layer (Mocanu et al. 2018)", _SET),
    "dsr": (
        "drop small weights of all layers, grow at random where weights survived (Mostafa and Wang 2019)",
        {**_SET, "scope": "global", "allocation": "survivors"},
    ),
    "snfs": (
        "grow by the momentum of dense gradients, most in the layers where it is large (Dettmers and Zettlemoyer 2019)",
        {**_SET, "grow": "gradient", "allocation": "momentum", "gradient_momentum": 0.9, "drop_fraction": 0.5},
    ),
    "rigl": ("drop small weights, grow where the gradient is large, layer by layer (Evci et al. 2020)", _RIGL),
    "rigl-itop": (
        "RigL with rare, large updates, so that new weights mature (Liu et al. 2021)",
        {**_RIGL, "update_every": 1500, "drop_fraction": 0.5},
    ),
    "mest": (
        "drop by |w| + λ|g|, grow at random, in steps that get smaller (Yuan et al. 2021)",
        {**_MEST, "distribution": "uniform", "soft_bound": 0.0, "decay": "steps"},
    ),
    "mest-ems": (
        "MEST under a soft memory bound: grow first, drop after training on (Yuan et al. 2021)",
        {**_MEST, "distribution": "uniform", "soft_bound": 0.05, "decay": "steps"},
    ),
    "granet": (
        "prune gradually from half of the weights, regrowing by gradient at each event (Liu et al. 2021)",
        {"initial_sparsity": 0.5, "allocation": "layer", "soft_bound": 0.0, "drop_fraction": 0.5, "stop": 0.75},
    ),
    "chase": ("gradual removal of amenable channels, soft memory bound, global exploration (paper §3)", {}),
    "chase-snip": ("Chase from SNIP's masks (paper Table 3)", {"initial": "snip", **_HALF}),
    "chase-grasp": ("Chase from GraSP's masks (paper Table 3)", {"initial": "grasp", **_HALF}),
    "set-gacp": ("SET with gradual amenable channel pruning (paper Table 7)", {**_SET, **_HALF, "stop": 0.8}),
    "rigl-gacp": ("RigL with gradual amenable channel pruning (paper Table 7)", {**_RIGL, **_HALF}),
    "prune-finetune": (
        "train dense, remove channels by FPGM (He et al. 2019) over a tenth of the run, fine-tune; the usual baseline",
        {
            "sparsity": 0.0,
            "update_every": 0,
            "criterion": "fpgm",
            "channel_scope": "layer",
            "channel_start": 0.5,
            "stop": 0.6,
            "executed_macs": 0.5,
        },
    ),
}

METHODS: Registry[Method] = Registry(
    "method", {name: Method(name=name, **settings) for name, (_, settings) in _CATALOG.items()}
)
ABOUT: dict[str, str] = {name: about for name, (about, _) in _CATALOG.items()}
"""What each built-in method is, and where it comes from."""


def make(name: str, **settings: Any) -> Method:
    """The method called `name` with some settings changed.

    Raises:
        RecipeError: for a setting that no method has or a value out of its range.
        UnknownName: for a name that `METHODS` does not hold.
    """
    method = METHODS[name]
    known = [field.name for field in fields(Method) if field.name != "name"]
    for key in settings:
        if key not in known:
            raise RecipeError(f"method.{key}: no such setting; {did_you_mean(key, known)}")
    return replace(method, **settings)


def Chase(**settings: Any) -> Method:  # noqa: N802 - reads as the type that it makes
    """Chase (paper §3): gradual removal of amenable channels, soft memory bound, global exploration."""
    return make("chase", **settings)


def RigL(**settings: Any) -> Method:  # noqa: N802
    """RigL (Evci et al. 2020): drop small weights, grow where the gradient is large, layer by layer."""
    return make("rigl", **settings)


def SET(**settings: Any) -> Method:  # noqa: N802
    """SET (Mocanu et al. 2018): drop small weights, grow at random, layer by layer."""
    return make("set", **settings)
