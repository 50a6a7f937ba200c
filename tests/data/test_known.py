"""What is known of data sets before they are loaded."""

from __future__ import annotations

import pytest

from chase.data import catalog, load_data
from chase.data.known import Extent, extent
from chase.errors import UnknownName
from chase.settings import DataSettings


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10", Extent(10, (3, 32, 32), 50_000)),
        ("cifar100", Extent(100, (3, 32, 32), 50_000)),
        ("imagenet", Extent(1000, (3, 224, 224), 1_281_167)),
    ],
)
def test_the_papers_data_sets_are_known_without_their_files(
    name: str, expected: Extent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(catalog, "load_data")

    assert extent(DataSettings(name=name, root="no/such/folder")) == expected


def test_another_data_set_is_loaded_with_its_settings() -> None:
    settings = DataSettings(name="synthetic", settings={"shape": [1, 4, 6], "train": 7, "test": 2, "classes": 3})

    assert extent(settings) == Extent(3, (1, 4, 6), 7)


def test_the_digits_extent_is_that_of_the_data() -> None:
    assert extent(DataSettings(name="digits")) == Extent(10, (1, 8, 8), len(load_data("digits").train))


def test_a_known_data_set_with_settings_of_its_own_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, *, root: str | None, **settings: object) -> object:
        asked.append((name, root, settings))
        return load_data("synthetic", train=4, test=2)

    monkeypatch.setattr(catalog, "load_data", load)

    assert extent(DataSettings(name="imagenet", root="r", settings={"size": 128})).train == 4
    assert asked == [("imagenet", "r", {"size": 128})]


def test_an_unknown_data_set_is_named() -> None:
    with pytest.raises(UnknownName, match="no dataset named 'cifar11'; did you mean 'cifar10'"):
        extent(DataSettings(name="cifar11"))
