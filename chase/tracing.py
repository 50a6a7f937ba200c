"""The graph of a network's forward pass, through `torch.export`: every tensor operation, with shapes.

Channel groups (`chase.slimming.groups`) and MAC counts (`chase.counting`) both read it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from chase.errors import TraceError


@dataclass(frozen=True)
class Trace:
    """The nodes of one forward pass in execution order.

    `tensors` maps a placeholder node's name to the parameter or buffer it stands for. Tied tensors carry the
    name that comes first in the model.
    """

    nodes: tuple[fx.Node, ...]
    tensors: dict[str, str]

    def tensor_name(self, node: object) -> str | None:
        """The parameter or buffer that `node` stands for, or None."""
        return self.tensors.get(node.name) if isinstance(node, fx.Node) else None


def operator(node: fx.Node) -> str:
    """The operator of a call without its overload, such as "aten.conv2d"; "" for other nodes."""
    if node.op != "call_function":
        return ""
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(packet) if packet is not node.target else getattr(node.target, "__name__", str(node.target))


def shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's result; empty where the result is not a tensor."""
    value = node.meta.get("val")
    return tuple(int(side) for side in value.shape) if isinstance(value, Tensor) else ()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """`model` in evaluation mode; every module's own mode is put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


def trace(model: nn.Module, example: Tensor) -> Trace:
    """Trace `model` in evaluation mode on inputs shaped like `example` [b, ...]; the model is left as it was.

    Raises:
        TraceError: if `torch.export` cannot follow the forward pass.
    """
    pair = torch.cat([example[:1], example[:1]])  # a batch of 2 is never mistaken for an axis of length 1
    with evaluating(model), warnings.catch_warnings():
        warnings.simplefilter("ignore", category=FutureWarning)
        warnings.simplefilter("ignore", category=DeprecationWarning)
        try:
            program = torch.export.export(model, (pair,), strict=False)
        except Exception as error:  # whatever the user's forward raises
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise TraceError(
                f"cannot trace {type(model).__name__} on an input of shape {list(example.shape)}: {reason}"
            ) from error
    signature = program.graph_signature
    found = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    first = _first_names(model)
    return Trace(tuple(program.graph.nodes), {node: first.get(name, name) for node, name in found.items()})


def _first_names(model: nn.Module) -> dict[str, str]:
    """Every name of a parameter or buffer, to the first name of the same tensor."""
    seen: dict[int, str] = {}
    names: dict[str, str] = {}
    for named in (model.named_parameters, model.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            names[name] = seen.setdefault(id(tensor), name)
    return names
