"""Registries: names, hints, and entries of installed packages."""

from __future__ import annotations

import pytest

from chase import registry
from chase.errors import RecipeError, UnknownName
from chase.registry import Registry, did_you_mean


def test_an_entry_can_be_looked_up_and_added() -> None:
    things = Registry("thing", {"one": 1})
    things["two"] = 2

    assert (things["one"], things["two"]) == (1, 2)
    assert dict(things) == {"one": 1, "two": 2}


def test_a_missing_name_is_explained_and_caught_by_two_types() -> None:
    things = Registry("thing", {"one": 1, "two": 2})

    with pytest.raises(UnknownName) as caught:
        things["onn"]

    assert str(caught.value) == "no thing named 'onn'; did you mean 'one'?"
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, RecipeError)


def test_a_name_like_none_of_them_gets_the_list_in_order() -> None:
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"


def test_an_installed_package_adds_an_entry_on_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        def load(self) -> int:
            return 7

    asked = []

    def entry_points(group: str, name: str) -> list[Found]:
        asked.append((group, name))
        return [Found()]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    things = Registry("odd thing", {"one": 1})

    assert things["theirs"] == things["theirs"] == 7
    assert asked == [("chase.odd_things", "theirs")]
