"""The graph of a network's forward pass, through `torch.export`: every tensor operation, with shapes.

Channel groups (`chase.slimming.groups`) and MAC counts (`chase.counting`) both read it.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from chase.errors import TraceError, reason

Example: TypeAlias = Tensor | tuple[Any, ...]
"""What a model is called with: one tensor [b, ...], or a tuple of arguments whose tensors have a batch axis first."""


@dataclass(frozen=True)
class Trace:
    """The nodes of one forward pass in execution order.

    `tensors` maps a placeholder node's name to the parameter or buffer it stands for, `buffers` are the names of
    buffers among them. Tied tensors carry the name that comes first in the model.
    """

    nodes: tuple[fx.Node, ...]
    tensors: dict[str, str]
    buffers: frozenset[str] = frozenset()
    inputs: frozenset[str] = frozenset()

    def tensor_name(self, node: object) -> str | None:
        """The parameter or buffer that `node` stands for, or None."""
        return self.tensors.get(node.name) if isinstance(node, fx.Node) else None

    def unused(self) -> set[str]:
        """Parameters and buffers that the forward pass does not touch."""
        used = {self.tensors[node.name] for node in self.nodes if node.name in self.tensors and node.users}
        return set(self.tensors.values()) - used


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


def caller(node: fx.Node) -> str:
    """The module that calls a node's operator, such as "layer1.0.bn1"; "" for the model itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def place(node: fx.Node) -> str:
    """Where a node stands in the model, in words: its operator and the module that calls it."""
    module = caller(node)
    name = operator(node).removeprefix("aten.").removesuffix("_") or node.name
    return f"{name} in {module}" if module else name


@contextlib.contextmanager
def evaluating(model: nn.Module, *, training: bool = False) -> Iterator[nn.Module]:
    """`model` in evaluation (or training) mode; every module's own mode is put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and tracebacks that torch prints beside an exception it raises anyway."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=FutureWarning)
            warnings.simplefilter("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message="The tensor attribute")  # caches that a forward pass fills
            yield
    finally:
        logger.disabled = before


def arguments(example: Example, *, batch: int) -> tuple[Any, ...]:
    """The arguments of a forward call on a batch of so many: the first row of every tensor, repeated."""
    whole = example if isinstance(example, tuple) else (example,)
    repeated: tuple[Any, ...] = pytree.tree_map_only(Tensor, lambda x: torch.cat([x[:1]] * batch), whole)
    return repeated


def trace(model: nn.Module, example: Example, *, training: bool = False) -> Trace:
    """Trace `model` on inputs shaped like `example`, in evaluation or training mode; the model is left as it was.

    Raises:
        TraceError: if `torch.export` cannot follow the forward pass.
    """
    pair = arguments(example, batch=2)  # a batch of 2 is never mistaken for an axis of length 1
    with evaluating(model, training=training), quiet():
        try:
            program = torch.export.export(model, pair, strict=False)
        except Exception as error:  # whatever the user's forward raises
            shapes = [list(x.shape) for x in pytree.tree_leaves(example) if isinstance(x, Tensor)]
            shown = shapes[0] if len(shapes) == 1 else shapes
            raise TraceError(
                f"cannot trace {type(model).__name__} on an input of shape {shown}: {reason(error)}"
            ) from error
    signature = program.graph_signature
    found = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    first = _first_names(model)
    return Trace(
        nodes=tuple(program.graph.nodes),
        tensors={node: first.get(name, name) for node, name in found.items()},
        buffers=frozenset(first.get(name, name) for name in signature.inputs_to_buffers.values()),
        inputs=frozenset(signature.user_inputs),
    )


def _first_names(model: nn.Module) -> dict[str, str]:
    """Every name of a parameter or buffer, to the first name of the same tensor."""
    seen: dict[int, str] = {}
    names: dict[str, str] = {}
    for named in (model.named_parameters, model.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            names[name] = seen.setdefault(id(tensor), name)
    return names
