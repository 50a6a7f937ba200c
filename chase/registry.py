"""Names that are not there, explained; and Registry: a dict that does so, and asks installed packages for them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from typing import TypeVar

from chase.errors import RecipeError, UnknownName

Entry = TypeVar("Entry")
MOST_LISTED = 16


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is not in `known`: the closest match, else the list (its beginning, where it is long)."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1) or [each for each in names if name and each.startswith(name)]
    listed = ", ".join(names[:MOST_LISTED]) + (", …" if len(names) > MOST_LISTED else "")
    return f"did you mean {close[0]!r}?" if close else f"known: {listed}"


def check_patterns(setting: str, patterns: Iterable[str], layers: Collection[str]) -> None:
    """Refuse a pattern of layer names, such as "layer4.*", that would have no effect.

    Raises:
        RecipeError: if one matches none of `layers`.
    """
    for pattern in patterns:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            raise RecipeError(f"{setting}: no layer matches {pattern!r}; {did_you_mean(pattern, layers)}")


class Registry(dict[str, Entry]):
    """Named entries of one kind, such as models or exporters.

    Built-in entries are the literal it is made from; anyone adds one with `REGISTRY["mine"] = entry`; an
    installed package adds one through the entry-point group `chase.<kind>s`.

    Raises:
        UnknownName: on `registry[name]` for a name that neither it nor an installed package has.
    """

    def __init__(self, kind: str, entries: dict[str, Entry]) -> None:
        super().__init__(entries)
        self.kind = kind

    def __missing__(self, name: str) -> Entry:
        for found in entry_points(group=f"chase.{self.kind.replace(' ', '_')}s", name=name):
            self[name] = found.load()
            return self[name]
        raise UnknownName(f"no {self.kind} named {name!r}; {did_you_mean(name, self)}")
