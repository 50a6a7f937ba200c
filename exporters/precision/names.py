"""The names of layers: the same for a torch.fx graph and for the ONNX graph that is made from it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from chase.registry import check_patterns


@dataclass(frozen=True)
class Step:
    """One operation that computes: the module that calls it, what it is, and the weight that it multiplies with."""

    module: str
    operation: str
    weight: str | None = None


def names(steps: Sequence[Step]) -> list[str]:
    """The layer of each step, in the words of the model's own modules.

    A module that calls no other and holds at most one weight is one layer, whatever it computes: "layer1.0.conv1". What
    a larger module computes itself is one layer each, named after the module and the operation, and numbered from the
    second on: "layer1.0:add", "encoder.0.attention:linear", "encoder.0.attention:linear.2".
    """
    modules = {step.module for step in steps}
    callers = {"", *(above for module in modules for above in _above(module))}
    weights: defaultdict[str, set[str]] = defaultdict(set)
    for step in steps:
        if step.weight is not None:
            weights[step.module].add(step.weight)
    seen: Counter[str] = Counter()
    found = []
    for step in steps:
        name = step.module
        if name in callers or len(weights[name]) > 1:
            name = f"{name}:{step.operation}"
            seen[name] += 1
            name += f".{seen[name]}" if seen[name] > 1 else ""
        found.append(name)
    return found


def matching(patterns: Sequence[str], layers: Collection[str]) -> tuple[str, ...]:
    """The layers, in their order, that a pattern such as "layer4.*" matches.

    Raises:
        RecipeError: if a pattern matches none.
    """
    check_patterns("keep_fp32", patterns, layers)
    return tuple(layer for layer in layers if any(fnmatchcase(layer, pattern) for pattern in patterns))


def _above(module: str) -> Iterable[str]:
    """The modules that hold a module: "a" and "a.b" for "a.b.c"."""
    parts = module.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts)))
