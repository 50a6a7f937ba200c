"""One walk through a traced forward pass, in execution order: units in, units out, operator by operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, fx, nn

from chase.errors import TraceError
from chase.slimming.modules import ModuleCall, ModuleRule, calls
from chase.slimming.operators import RULES, Result, unknown
from chase.slimming.operators.movement import becomes_heads
from chase.slimming.operators.rule import Freedoms
from chase.slimming.units import UNKNOWN, Axis, Labels, Ledger
from chase.tracing import Trace, operator, place, shape

DEFAULT = Freedoms()


class Propagation:
    """The state of a walk; it is what rules see as `Flow`.

    Several walks may share a ledger: those of the evaluation and the training graph of one model. Where `guessing`,
    rules may take sizes in the graph to follow the widths; `guessed` holds the units for which one did.
    """

    def __init__(
        self,
        traced: Trace,
        owners: Mapping[str, type],
        ledger: Ledger | None = None,
        *,
        guessing: bool = False,
        freedoms: Freedoms = DEFAULT,
    ) -> None:
        self.trace, self.guessing, self.freedoms = traced, guessing, freedoms
        self.guessed: list[Tensor] = []
        self.owners = owners
        self.ledger = Ledger() if ledger is None else ledger
        self.values: dict[fx.Node, Result] = {}
        self.position = {node: index for index, node in enumerate(traced.nodes)}
        self.ancestors: dict[fx.Node, int] = {}
        self.memory: dict[fx.Node, fx.Node] = {}
        self.calls = calls(traced)
        self.inputs = sum(1 << self.position[node] for node in traced.nodes if node.name in traced.inputs)

    def labels(self, node: object) -> Labels | None:
        """The units of a node's result; those of a parameter or buffer run along each of its axes."""
        if not isinstance(node, fx.Node):
            return None
        name = self.tensor_name(node)
        if name is None:
            value = self.values.get(node)
            return value if isinstance(value, Labels) else None
        dead = UNKNOWN if self.is_buffer(node) else 0.0
        sides = shape(node)
        axes = {d: Axis(self.ledger.units_of(name, d, n), dead) for d, n in enumerate(sides) if n > 1}
        return Labels(sides, axes) if axes else None

    def several(self, node: object) -> tuple[Labels | None, ...]:
        """The units of each result of a node."""
        value = self.values.get(node) if isinstance(node, fx.Node) else None
        return value if isinstance(value, tuple) else (value,)

    def tensor_name(self, node: object) -> str | None:
        """The parameter or buffer that a node stands for."""
        return self.trace.tensor_name(node)

    def is_buffer(self, node: object) -> bool:
        """Whether a node stands for a buffer, which masks do not silence."""
        return self.tensor_name(node) in self.trace.buffers

    def owner(self, tensor: str) -> type:
        """The class of the module that a parameter or buffer belongs to."""
        return self.owners.get(tensor, nn.Module)

    def is_activation(self, node: object) -> bool:
        """Whether a node depends on the model's inputs."""
        return isinstance(node, fx.Node) and bool(self._with_itself(node) & self.inputs)

    def chosen_axis(self, node: fx.Node, axes: Sequence[int]) -> int:
        """The last of the axes that channels were split into, as in [groups, channels of each]; that of the heads, if
        they may leave and the axes become those of attention."""
        heads = [axis for axis in axes if becomes_heads(node, axis)] if self.freedoms.heads else []
        return heads[0] if heads else axes[-1]

    def guesses(self, ids: Tensor) -> bool:
        """Whether sizes may be taken to follow the width of these units."""
        self.guessed += [ids] if self.guessing else []
        return self.guessing

    def rejoin(self, node: fx.Node) -> None:
        """Mark the skip connection that ends at the addition `node`: both branches, and where they split."""
        ours, theirs = (arg for arg in node.args[:2] if isinstance(arg, fx.Node))
        common = self._with_itself(ours) & self._with_itself(theirs)
        self.ledger.skip(self.labels(ours))
        self.ledger.skip(self.labels(theirs))
        if common:
            self.ledger.skip(self.labels(self.trace.nodes[common.bit_length() - 1]))

    def _with_itself(self, node: fx.Node) -> int:
        return self.ancestors[node] | 1 << self.position[node]

    def run(self) -> Ledger:
        """Walk every node; what no rule covers is held."""
        for node in self.trace.nodes:
            self.ancestors[node] = 0
            for source in node.all_input_nodes:
                self.ancestors[node] |= self._with_itself(source)
            self.values[node] = self._visit(node)
        self.ledger.settle()
        return self.ledger

    def _visit(self, node: fx.Node) -> Result:
        if node.op == "output":
            for source in node.all_input_nodes:
                for labels in self.several(source):
                    self.ledger.pin(labels, "is an output of the model")
            return None
        if node.op != "call_function":
            return None
        if node in self.calls:
            return self._visit_module(node, *self.calls[node])
        self.ledger.explained.clear()
        try:
            result = RULES.get(operator(node), unknown)(self, node)
        except Exception as error:  # a rule may come from outside
            raise TraceError(f"the rule for {operator(node)} failed at {place(node)}: {error!r}") from error
        for name in filter(None, map(self.tensor_name, node.all_input_nodes)):
            if name not in self.ledger.explained:
                self.ledger.foreign.setdefault(name, f"owns part of {name}, which {operator(node)} also uses")
        self._write(node, result)
        return result

    def _visit_module(self, node: fx.Node, call: ModuleCall, rule: ModuleRule) -> Result:
        """A call of a module with a rule of its own counts where its result appears."""
        if node is not call.output:
            return None
        self.ledger.explained.clear()
        result = rule(self, call)
        inside = {name for one in call.nodes for name in map(self.tensor_name, one.all_input_nodes) if name is not None}
        for name in inside - self.ledger.explained:
            self.ledger.foreign.setdefault(name, f"owns part of {name}, which {call.name} uses")
        return result

    def _write(self, node: fx.Node, result: Result) -> None:
        """Follow memory: an operator may write into its input, which others may look at through views."""
        schema = getattr(node.target, "_schema", None)
        if not node.args or not isinstance(node.args[0], fx.Node):
            return
        if operator(node) == "getitem" and node.args[0] in self.memory:
            self.memory[node] = self.memory[node.args[0]]
        if schema is None:
            return
        target, alias = node.args[0], schema.arguments[0].alias_info
        if alias is None:
            return
        self.memory[node] = self.memory.get(target, target)
        if not alias.is_write:
            return
        self.values[target] = result
        for other in self._readers(node, target):
            reason = f"is written in place by {operator(node)} and read through another view"
            for value in (result, self.values.get(other)):
                for labels in value if isinstance(value, tuple) else (value,):
                    self.ledger.pin(labels, reason)

    def _readers(self, node: fx.Node, target: fx.Node) -> list[fx.Node]:
        """Other views of what `node` wrote that are still read after it."""
        now, memory = self.position[node], self.memory[node]
        sharing = [other for other, owner in self.memory.items() if owner is memory] + [memory]
        return [
            other
            for other in sharing
            if other not in (node, target) and any(self.position[user] > now for user in other.users)
        ]


def owners(model: nn.Module) -> dict[str, type]:
    """The class of the module that each parameter and buffer belongs to, by name."""
    found: dict[str, type] = {}
    for prefix, module in model.named_modules():
        tensors: list[tuple[str, Tensor]] = [*module.named_parameters(recurse=False)]
        tensors += module.named_buffers(recurse=False)
        found |= {f"{prefix}.{name}" if prefix else name: type(module) for name, _ in tensors}
    return found
