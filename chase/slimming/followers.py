"""Settings of modules that follow the shapes of their tensors: in_channels, groups, num_features and so on.

A forward pass that reads a hidden number (`self.heads`) works after slimming if its module is declared here:
`FOLLOWERS[MyModule] = function`, where `function(module)` returns the settings that its tensors ask for now, given
those from before. A class outside the installed packages is declared by its full name, as a string.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from chase.slimming.modules import full_name
from chase.slimming.norms import wide
from chase.tracing import evaluating

Follower = Callable[[Any], dict[str, Any]]


def convolution(module: Any) -> dict[str, Any]:
    """A depthwise convolution has as many groups as channels; the groups of others stay."""
    rows, columns = module.weight.shape[:2]
    depthwise = module.groups > 1 and module.groups == module.in_channels
    groups = rows * module.in_channels // module.out_channels if depthwise else module.groups
    return {"in_channels": columns * groups, "out_channels": rows, "groups": groups}


def transposed_convolution(module: Any) -> dict[str, Any]:
    """The weight is [in, out / groups, ...]."""
    rows, columns = module.weight.shape[:2]
    depthwise = module.groups > 1 and module.groups == module.in_channels
    groups = rows if depthwise else module.groups
    return {"in_channels": rows, "out_channels": columns * groups, "groups": groups}


def linear(module: Any) -> dict[str, Any]:
    """The weight is [out, in]."""
    return {"out_features": module.weight.shape[0], "in_features": module.weight.shape[1]}


def batch_norm(module: Any) -> dict[str, Any]:
    """Batch and instance norms: as many features as statistics or weights."""
    vector = module.running_mean if module.running_mean is not None else module.weight
    return {} if vector is None else {"num_features": vector.shape[0]}


def group_norm(module: Any) -> dict[str, Any]:
    """Whole groups leave, so the channels of a group stay as many."""
    if module.weight is None:
        return {}
    channels = module.weight.shape[0]
    return {"num_channels": channels, "num_groups": channels * module.num_groups // module.num_channels}


def layer_norm(module: Any) -> dict[str, Any]:
    """A LayerNorm that lost channels still divides by its dense width."""
    width = module.normalized_shape[0]
    if module.weight is None or len(module.normalized_shape) > 1 or module.weight.shape[0] == width:
        return {}
    return {"normalized_shape": (module.weight.shape[0],), "dense_width": getattr(module, "dense_width", width)}


def prelu(module: Any) -> dict[str, Any]:
    """One slope a channel, or one for all."""
    return {"num_parameters": module.weight.shape[0]}


def embedding(module: Any) -> dict[str, Any]:
    """The weight is [entries, features]."""
    return {"embedding_dim": module.weight.shape[1]}


def res2net(module: Any) -> dict[str, Any]:
    """timm splits the channels of the first convolution into `scale` parts of `width`."""
    return {"width": module.conv1.weight.shape[0] // module.scale}


def cross_stage(module: Any) -> dict[str, Any]:
    """timm splits what the expanding convolution makes into two halves."""
    return {} if module.conv_exp is None else {"expand_chs": module.conv_exp.conv.weight.shape[0]}


def attention(module: Any) -> dict[str, Any]:
    """timm's attention: as many heads of `head_dim` as the output projection reads."""
    width = module.proj.weight.shape[1]
    return {"attn_dim": width, "num_heads": width // module.head_dim}


FOLLOWERS: dict[type | str, Follower] = {
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Conv3d: convolution,
    nn.ConvTranspose1d: transposed_convolution,
    nn.ConvTranspose2d: transposed_convolution,
    nn.ConvTranspose3d: transposed_convolution,
    nn.Linear: linear,
    nn.modules.batchnorm._NormBase: batch_norm,
    nn.GroupNorm: group_norm,
    nn.LayerNorm: layer_norm,
    nn.PReLU: prelu,
    nn.Embedding: embedding,
    "timm.layers.attention.Attention": attention,
    "timm.models.cspnet.CrossStage": cross_stage,
    "timm.models.cspnet.CrossStage3": cross_stage,
    "timm.models.res2net.Bottle2neck": res2net,
}
"""What follows the tensors of a module, by its class or a parent of it; the nearest declared one counts."""


def follower(module: nn.Module) -> Follower | None:
    """The function declared for the class of `module`, or for the nearest of its parents."""
    for kind in type(module).__mro__:
        for key in (kind, full_name(kind)):
            if key in FOLLOWERS:
                return FOLLOWERS[key]
    return None


def followed(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Bring the settings of every module in line with its tensors, in place; what changed, by module."""
    changed: dict[str, dict[str, Any]] = {}
    for name, module in model.named_modules():
        declared = follower(module)
        if declared is None:
            continue
        with evaluating(module):  # a spectral norm turns whenever its weight is looked at in training
            wanted = declared(module)
        different = {key: value for key, value in wanted.items() if getattr(module, key, None) != value}
        if different:
            settle(module, different)
            changed[name] = different
    return changed


def settle(module: nn.Module, settings: Mapping[str, Any]) -> None:
    """Set what follows the tensors of a module; a LayerNorm with a dense width becomes a wide one."""
    for key, value in settings.items():
        setattr(module, key, value)
    if "dense_width" in settings and (kind := wide(type(module))) is not None:
        module.__class__ = kind
