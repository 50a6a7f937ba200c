"""Divergence: where does a file depart from its network? The first layer whose output is another.

Torch's graph and the file's are laid side by side by the module that each operation belongs to, which both of them
note, and run on the same inputs. What is compared is what a module gives in the end, so it does not matter that a file
computes it in other steps; a value that the file no longer has, such as that of a convolution whose BatchNorm was
folded into it, is passed over.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from chase.artifact import Artifact
from chase.errors import reason
from chase.exporters.job import exported
from chase.exporters.parity import ROUNDINGS, Gate, signal_to_noise
from chase.exporters.precision.graph import flat
from chase.runtimes.torch_export import load_program
from chase.tracing import caller, operator, quiet

Run: TypeAlias = Callable[[Iterable[str], Tensor], dict[str, Tensor]]  # (names, inputs) -> the values of those names

_SAMPLES = 2  # every layer's output is held for each of them
_LABELS = {"scopes": "pkg.torch.onnx.name_scopes", "classes": "pkg.torch.onnx.class_hierarchy"}  # of torch.onnx's nodes
_INSTEAD = {"torchscript": "torch-export", "aoti": "torch-export", "executorch": "torch-export"}


@dataclass(frozen=True)
class Value:
    """A value of a graph: its name, the module and the operator that give it, and which of that operator's it is."""

    name: str
    module: str
    operator: str
    turn: int


@dataclass(frozen=True)
class Graph:
    """The values of a graph in an order in which they can be computed, its answer last, and how to have them."""

    values: tuple[Value, ...]
    run: Run


def first_divergence(model: nn.Module, artifact: Artifact, samples: Tensor, gate: Gate) -> str | None:
    """The first layer whose output is not that of `model`, in words that end a line, or why none can be named.

    Looks at the first two of `samples` [n, ...]. In fp32 a layer differs if it is further off than the answers may be
    and than four times its own distance from float64; in a reduced precision if its signal-to-noise ratio is below
    what the answers need. None if `gate` bounds neither. Raises nothing: why a file cannot be looked into is said.
    """
    if gate.max_rel is None and gate.snr_db is None:
        return None
    graphs = {"onnx": _of_onnx, "torch-export": _of_export}
    try:
        if artifact.format == "triton":
            return first_divergence(model, artifact.inner(), samples, gate)
        if artifact.format in graphs:
            graph = graphs[artifact.format](artifact)
            program = flat if artifact.precision in ("fp16", "bf16") else _exported
            return _compared(model, graph, samples[:_SAMPLES], gate, program)
    except Exception as error:  # the file may be anything, and this is only the end of a message
        return f"its layers cannot be compared ({reason(error)})"
    instead = f"{_INSTEAD.get(artifact.format, 'onnx')} in {artifact.precision}"
    return f"{artifact.format} hides its layers; to see which one differs, export to {instead} and verify that"


def _exported(model: nn.Module, samples: Tensor) -> fx.GraphModule:
    program: Any = exported(model, samples)
    graph: fx.GraphModule = program.module(check_guards=False)
    return graph


def _compared(
    model: nn.Module, graph: Graph, samples: Tensor, gate: Gate, write: Callable[[nn.Module, Tensor], fx.GraphModule]
) -> str:
    """What `first_divergence` says, where `write` makes the graph of the model that the file's was made from."""
    program = write(model, samples)
    reference = _of_program(program)
    pairs = paired(reference.values, graph.values)
    expected = reference.run(pairs, samples)
    actual = graph.run({value.name for value in pairs.values()}, samples)
    own = {} if gate.max_rel is None else _roundings(program, expected, samples)
    found = {
        name: _difference(expected[name], actual[value.name].float(), gate, own.get(name, 0.0))
        for name, value in pairs.items()
        if actual[value.name].shape == expected[name].shape
    }
    nodes = {node.name: node for node in program.graph.nodes}
    for name, difference in found.items():
        if difference and _is_felt(nodes[name], found):
            layer, kind = _label(nodes[name])
            return f"the first layer that differs is {layer} ({kind}, {difference})"
    return f"none of its {len(found)} layers differs when they are run one by one on the CPU"


def paired(expected: Sequence[Value], actual: Sequence[Value]) -> dict[str, Value]:
    """The names of `expected`, in their order, with the values of `actual` that should be the same.

    Of a module that runs once it is what it gives last. Of one that runs again and again, and of the outermost, it is
    what each of its operators gives in turn, if both graphs have that operator as often. A graph that notes no modules,
    such as one that was rewritten in half precision, is such an outermost one.
    """
    if not any(value.module for value in actual):
        expected = [dataclasses.replace(value, module="") for value in expected]
    common = {value.module for value in expected} & {value.module for value in actual}
    ours = [value for value in expected if value.module in common]
    runs = Counter(module for module, _ in itertools.groupby(value.module for value in ours))
    last, their_last = ({value.module: value for value in values} for values in (ours, actual))
    turns, their_turns = _turns(ours), _turns(actual)
    pairs = {}
    for value in ours:
        same, others = turns[value.module, value.operator], their_turns[value.module, value.operator]
        if value.module and runs[value.module] == 1:
            if value is last[value.module]:
                pairs[value.name] = their_last[value.module]
        elif len(same) == len(others):
            pairs[value.name] = others[same.index(value)]
    return pairs | {expected[-1].name: actual[-1]}


def _turns(values: Iterable[Value]) -> defaultdict[tuple[str, str], list[Value]]:
    turns = defaultdict(list)
    for value in sorted(values, key=lambda each: each.turn):
        turns[value.module, value.operator].append(value)
    return turns


def _difference(expected: Tensor, actual: Tensor, gate: Gate, rounding: float) -> str | None:
    """How far a layer is off, in words, if that is more than `gate` lets it be; its own rounding error is no fault."""
    if not actual.isfinite().all() and expected.isfinite().all():
        return "not finite"
    if gate.max_rel is None:
        ratio = signal_to_noise(expected.double(), actual.double())
        return None if ratio is None or gate.snr_db is None or ratio >= gate.snr_db else f"{ratio:.1f} dB"
    far = _relative(expected, actual)
    return None if far <= max(gate.max_rel, ROUNDINGS * rounding) else f"{far:.1e} relative"


def _relative(expected: Tensor, actual: Tensor) -> float:
    """The largest difference relative to the largest value."""
    far = float((actual.double() - expected.double()).abs().max())
    return far / float(expected.abs().max()) if far else 0.0


def _roundings(program: fx.GraphModule, expected: Mapping[str, Tensor], samples: Tensor) -> dict[str, float]:
    """The relative distance of each value from itself in float64; nothing where the network allows no float64."""
    try:
        exact = _of_program(copy.deepcopy(program).double()).run(expected, samples.double())
    except RuntimeError:  # a step that asks for float32
        return {}
    return {name: _relative(value, expected[name]) for name, value in exact.items()}


def _is_felt(node: fx.Node, found: Mapping[str, str | None]) -> bool:
    """Whether one of the next values that `node` leads to differs as well, or it is the answer itself.

    One that nothing feels is no fault: two graphs merely have something else in the same place.
    """
    queue, seen, felt = list(node.users), set(), []
    while queue:
        user = queue.pop()
        if user.name in found:
            felt.append(found[user.name] is not None)
        elif user not in seen:
            seen.add(user)
            queue.extend(user.users)
    return any(felt) or not felt


def _label(node: fx.Node) -> tuple[str, str]:
    """The layer or module that a node belongs to and its class, such as ("layer1.0.bn1", "BatchNorm2d").

    In a network that is a list of operators it is the layer whose weights it takes, or the last one before it.
    """
    kind = _normal(operator(node))
    if caller(node):
        kind = str(list(node.meta["nn_module_stack"].values())[-1][1]).rpartition(".")[2]
    if layer := node.meta.get("layer") or caller(node):
        return layer, kind
    near = node
    while not (layer := _owner(near)) and near.all_input_nodes:
        near = near.all_input_nodes[0]
    return layer if near is node else f"{node.name} after {layer}", kind


def _owner(node: fx.Node) -> str:
    """The module whose weights a node takes, or nothing."""
    weights = [str(each.target) for each in node.all_input_nodes if each.op == "get_attr"]
    return weights[0].rpartition(".")[0] or weights[0] if weights else ""


def _normal(operator: str) -> str:
    """An operator's name without what sets apart its forms: "aten._native_batch_norm_legit_no_training.default"."""
    name = operator.removeprefix("aten.").partition(".")[0].strip("_")
    return name.removeprefix("native_").removesuffix("_legit_no_training")


def _turn(name: str) -> int:
    """The number that torch gives to the second and later values of the same operator."""
    found = re.search(r"_(\d+)$", name)
    return int(found[1]) if found else 0


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return node.op == "call_function" and isinstance(value, Tensor) and value.is_floating_point()


def _of_program(program: fx.GraphModule) -> Graph:
    """What a torch.export program computes."""
    nodes = [node for node in program.graph.nodes if _is_float(node)]
    values = (Value(node.name, caller(node), _normal(operator(node)), _turn(node.name)) for node in nodes)

    def run(names: Iterable[str], inputs: Tensor) -> dict[str, Tensor]:
        interpreter = _Keeping(program, names)
        with torch.inference_mode():
            interpreter.run(inputs)
        return interpreter.kept

    return Graph(tuple(values), run)


class _Keeping(fx.Interpreter):
    """Runs a graph and keeps the values of some names."""

    def __init__(self, module: fx.GraphModule, names: Iterable[str]) -> None:
        super().__init__(module)
        self.names, self.kept = set(names), dict[str, Tensor]()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.names:
            self.kept[n.name] = value.clone()  # what follows may work in place
        return value


def _of_export(artifact: Artifact) -> Graph:
    with quiet():
        program: Any = load_program(artifact.path)
        return _of_program(program.module(check_guards=False))


def _of_onnx(artifact: Artifact) -> Graph:
    """What an ONNX file computes, by ONNX Runtime on the CPU, with its optimisations off."""
    import numpy
    import onnx
    import onnxruntime

    proto = onnx.shape_inference.infer_shapes(onnx.load(str(artifact.path)))
    entry, answer = proto.graph.input[0].name, proto.graph.output[0].name
    values = (*_labelled(proto), Value(answer, "", "", 0))

    def run(names: Iterable[str], inputs: Tensor) -> dict[str, Tensor]:
        asked = sorted({*names} - {answer})
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in asked)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found = session.run([answer, *asked], {entry: inputs.numpy()})
        arrays = (numpy.asarray(each, dtype=numpy.float32) for each in found)
        return {name: torch.from_numpy(array) for name, array in zip([answer, *asked], arrays, strict=True)}

    return Graph(values, run)


def _labelled(proto: Any) -> Iterator[Value]:
    """The values of an ONNX file that torch.onnx noted the origin of; of one operator's steps only the last."""
    from onnx import TensorProto

    floats = {TensorProto.FLOAT, TensorProto.FLOAT16}
    typed = (*proto.graph.value_info, *proto.graph.output)
    known = {value.name for value in typed if value.type.tensor_type.elem_type in floats}
    found: dict[tuple[str, str], Value] = {}
    for node in proto.graph.node:
        labels = {entry.key: entry.value for entry in node.metadata_props}
        if node.output[0] in known and _LABELS["scopes"] in labels:
            scopes, classes = (ast.literal_eval(labels[_LABELS[key]]) for key in ("scopes", "classes"))
            module, origin = scopes[-2], scopes[-1]
            found.pop((module, origin), None)
            found[module, origin] = Value(node.output[0], module, _normal(classes[-1]), _turn(origin))
    yield from found.values()
