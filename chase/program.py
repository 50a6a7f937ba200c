"""Networks that no constructor can build again: their forward pass as plain data, through `torch.export`.

A program is fixed: evaluation mode, any batch size, the other sizes of the example. It lists the operators of the
forward pass one by one; only torch's own tensor operators are ever looked up, and nothing is parsed, unpickled or
compiled.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from chase.errors import CheckpointError, TraceError, reason
from chase.tracing import Example, arguments, evaluating, quiet

ARITHMETIC: dict[str, Callable[..., Any]] = {
    **{f"operator.{name}": getattr(operator, name) for name in ("getitem", "add", "sub", "mul", "floordiv", "mod",
       "truediv", "neg", "pow", "eq", "ne", "lt", "le", "gt", "ge", "and_", "or_")},
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc")},
    **{f"torch.{name}": getattr(torch, name) for name in ("sym_max", "sym_min", "sym_int", "sym_float", "sym_not")},
}  # fmt: skip
"""What computes sizes."""
FORBIDDEN = ("from_file", "save", "load")
"""Tensor operators that reach beyond tensors."""
CONSTANTS = (torch.dtype, torch.layout, torch.memory_format)


class Program(nn.Module):
    """A network given by a list of operators; it has no training mode."""

    def __init__(self, stored: dict[str, Any]) -> None:
        super().__init__()
        self.network = nn.Module()
        for name, tensor in stored["tensors"].items():
            _register(self.network, name, tensor, name in stored["parameters"])
        self.steps = [(_function(target), arguments) for target, arguments in stored["steps"]]
        self.result = stored["result"]

    def forward(self, x: Tensor) -> Any:
        """What the exported forward pass returns for inputs [b, ...]."""
        values: list[Any] = []

        def decoded(entry: Any) -> Any:
            return _decoded(entry, values, (x,), self.network)

        for function, given in self.steps:
            values.append(function(*decoded(given[0]), **decoded({"dict": given[1]})))
        return decoded(self.result)

    def train(self, mode: bool = True) -> Program:
        """Only notes the mode; the operators are those of the evaluation."""
        self.training = mode
        return self


def to_program(model: nn.Module, example: Example) -> dict[str, Any]:
    """The forward pass of `model` on inputs like `example` [b, ...], and its weights, as plain data.

    Raises:
        TraceError: if `torch.export` cannot follow the forward pass for any batch size, or it is more than operators.
    """
    pair = arguments(example, batch=2)
    shapes = tuple({0: Dim.AUTO} if isinstance(x, Tensor) else None for x in pair)
    with evaluating(model), quiet():
        try:
            program = torch.export.export(model, pair, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # whatever the user's forward raises
            raise TraceError(f"cannot export {type(model).__name__} as a program: {reason(error)}") from error
    stored = _listed(program)
    try:
        Program(stored)
    except CheckpointError as error:
        raise TraceError(f"cannot store {type(model).__name__} as a program: {error}") from error
    return stored


def from_program(stored: dict[str, Any]) -> Program:
    """The network that `to_program` stored.

    Raises:
        CheckpointError: if it is broken, or calls anything but torch's own tensor operators.
    """
    try:
        return Program(stored).eval()
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError("the stored program is broken, or of another version of torch") from error


def _listed(program: ExportedProgram) -> dict[str, Any]:
    signature = program.graph_signature
    found = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    entries: dict[fx.Node, Any] = {}
    steps: list[Any] = []
    for node in program.graph.nodes:
        if node.op == "placeholder":
            given = node.name in found
            value = found[node.name] if given else signature.user_inputs.index(node.name)
            entries[node] = {"tensor" if given else "input": value}
        elif node.op == "call_function":
            entries[node] = {"step": len(steps)}
            steps.append([_name(node.target), [_encoded(list(node.args), entries), _pairs(node.kwargs, entries)]])
        elif node.op == "output":
            leaves = node.args[0][-len(signature.user_outputs) :]
            result = pytree.tree_unflatten(list(leaves), program.call_spec.out_spec)
    used = {**program.state_dict, **program.constants}
    tensors = {name: used[name].detach().clone() for name in dict.fromkeys(found.values())}
    return {
        "tensors": tensors,
        "parameters": list(signature.parameters),
        "steps": steps,
        "result": _encoded(result, entries),
    }


def _name(target: Any) -> str:
    """The name that `_function` finds an operator by."""
    own = next((name for name, function in ARITHMETIC.items() if function is target), None)
    return own or str(target)


def _function(name: str) -> Callable[..., Any]:
    """The operator of that name.

    Raises:
        CheckpointError: if it is none that works on tensors and sizes alone.
    """
    if name in ARITHMETIC:
        return ARITHMETIC[name]
    if name in TRACEABLE:
        return TRACEABLE[name]
    namespace, *rest = name.split(".")
    if namespace == "aten" and len(rest) == 2 and rest[0] not in FORBIDDEN:
        found = getattr(getattr(torch.ops.aten, rest[0], None), rest[1], None)
        if isinstance(found, torch._ops.OpOverload):
            return found
    raise CheckpointError(f"{name} is no operator that a program may hold")


def _side(x: Tensor, axis: int) -> int:
    return x.shape[axis]


TRACEABLE: dict[str, Callable[..., Any]] = {
    "aten.sym_size.int": _side,
    "aten.view.default": Tensor.view,
    "aten.reshape.default": Tensor.reshape,
    "aten.expand.default": Tensor.expand,
}
"""The same operators as methods, through which `torch.jit.trace` follows sizes."""


def _encoded(value: Any, entries: dict[fx.Node, Any]) -> Any:
    """Arguments as plain data: one key says what a dictionary stands for."""
    if isinstance(value, fx.Node):
        return entries[value]
    if isinstance(value, CONSTANTS):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, list | tuple):
        inner = [_encoded(entry, entries) for entry in value]
        return {"tuple": inner} if isinstance(value, tuple) else inner
    if isinstance(value, dict):
        return {"dict": _pairs(value, entries)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TraceError(f"a program cannot hold a {type(value).__name__}")


def _pairs(value: dict[str, Any], entries: dict[fx.Node, Any]) -> dict[str, Any]:
    return {str(key): _encoded(entry, entries) for key, entry in value.items()}


def _decoded(entry: Any, values: list[Any], inputs: tuple[Any, ...], model: nn.Module) -> Any:
    if isinstance(entry, list):
        return [_decoded(one, values, inputs, model) for one in entry]
    if not isinstance(entry, dict):
        return entry
    ((kind, value),) = entry.items()
    if kind == "step":
        return values[value]
    if kind == "input":
        return inputs[value]
    if kind == "tensor":
        return _found(model, value)
    if kind == "torch":
        constant = getattr(torch, value)
        if not isinstance(constant, CONSTANTS):
            raise CheckpointError(f"torch.{value} is nothing that a program may hold")
        return constant
    if kind == "device":
        return torch.device(value)
    if kind == "tuple":
        return tuple(_decoded(value, values, inputs, model))
    return {key: _decoded(one, values, inputs, model) for key, one in value.items()}


def _found(model: nn.Module, name: str) -> Tensor:
    path, _, last = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), last)
    return tensor


def _register(model: nn.Module, name: str, tensor: Tensor, parameter: bool) -> None:
    """Put a tensor where its name says."""
    *path, last = name.split(".")
    for part in path:
        if part not in model._modules:
            model.add_module(part, nn.Module())
        model = model.get_submodule(part)
    if parameter:
        model.register_parameter(last, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
    else:
        model.register_buffer(last, tensor)
