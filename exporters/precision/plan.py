"""Which operations of a flat graph work in float32, once most of them are to work in a reduced precision."""

from __future__ import annotations

from collections.abc import Collection

from torch import fx

from chase.exporters.precision.operators import Kind, is_float, kind


def in_full(graph: fx.Graph, keep_fp32: Collection[str]) -> dict[fx.Node, bool]:
    """Whether each node works in float32, where only the layers of `keep_fp32` compute in it.

    What hands numbers on follows what it is given: float32 if any of it is. Weights and the input have no precision of
    their own; they, and what only hands them on, are float32 where something reads them so.
    """
    full: dict[fx.Node, bool] = {}
    undecided = []
    for node in graph.nodes:
        what = kind(node)
        given = {full[source] for source in node.all_input_nodes if source in full and _carries_float(source)}
        if what is not Kind.FOLLOWS:
            full[node] = what is Kind.OPAQUE or node.meta["layer"] in keep_fp32
        elif given:
            full[node] = any(given)
        else:
            undecided.append(node)
    for node in reversed(undecided):
        full[node] = is_float(node) and any(full[user] for user in node.users)
    for node in undecided:  # sizes and comparisons of these
        if not is_float(node):
            full[node] = any(full[source] for source in node.all_input_nodes)
    return full


def _carries_float(node: fx.Node) -> bool:
    return is_float(node) or isinstance(node.meta.get("val"), tuple | list)
