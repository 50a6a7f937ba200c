"""Rules for whole modules: what a module does to units, whatever operators it is made of.

A module whose operators have no rule, but whose meaning is known, gets a rule of its own:
`MODULE_RULES[MyModule] = rule`, or by the full name of its class, as a string. The rule is handed the propagation and a
`ModuleCall`, and returns the labels of the call's result; what it does not `own` of the module's tensors stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import fx

from chase.tracing import Trace

if TYPE_CHECKING:
    from chase.slimming.operators import Flow, Result


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module in a graph.

    `name` is the module's path ("layer1.0.gate"), so its tensors are called f"{name}.weight" and so on; `inputs` are
    the values that come in, `output` is the one that goes out.
    """

    name: str
    inputs: tuple[fx.Node, ...]
    output: fx.Node
    nodes: frozenset[fx.Node]


ModuleRule = Callable[["Flow", ModuleCall], "Result"]
MODULE_RULES: dict[type | str, ModuleRule] = {}


def full_name(kind: type | str) -> str:
    """The name of a class with its module."""
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def declared(node: fx.Node, rules: Mapping[str, ModuleRule]) -> tuple[str, ModuleRule] | None:
    """The outermost module with a rule (by the full name of its class) that a node lies in: its path and the rule."""
    for path, kind in (node.meta.get("nn_module_stack") or {}).values():
        if (rule := rules.get(full_name(kind))) is not None:
            return path, rule
    return None


def calls(traced: Trace) -> dict[fx.Node, tuple[ModuleCall, ModuleRule]]:
    """Every node of a module with a rule, to the call that it belongs to; nodes of one call follow each other."""
    found: dict[fx.Node, tuple[ModuleCall, ModuleRule]] = {}
    run: list[fx.Node] = []
    here: tuple[str, ModuleRule] | None = None
    rules = {full_name(kind): rule for kind, rule in MODULE_RULES.items()}
    for node in traced.nodes:
        inside = declared(node, rules) if rules and node.op == "call_function" else None
        if inside != here and run and here is not None:
            found |= dict.fromkeys(run, (_call(traced, here[0], run), here[1]))
            run = []
        here = inside
        if inside is not None:
            run.append(node)
    return found


def _call(traced: Trace, name: str, nodes: list[fx.Node]) -> ModuleCall:
    inner = frozenset(nodes)
    coming = dict.fromkeys(source for node in nodes for source in node.all_input_nodes if source not in inner)
    inputs = tuple(source for source in coming if traced.tensor_name(source) is None)
    leaving = [node for node in nodes if any(user not in inner for user in node.users)]
    return ModuleCall(name, inputs, leaving[-1], inner)
