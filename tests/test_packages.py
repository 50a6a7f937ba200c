from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from chase.errors import MissingDependency
from chase.packages import installed, require


def test_a_package_that_is_not_there_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "thing.part", None)

    with pytest.raises(MissingDependency, match="^this needs the package thing; run: pip install it$"):
        require("thing.part", purpose="this", install="it", package="thing")


def test_a_package_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError("libthing.so.7: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", fail)

    with pytest.raises(MissingDependency, match=r"thing, which does not load \(libthing.so.7.*\); run: pip install it"):
        require("thing", purpose="this", install="it")


def test_a_package_that_lacks_another_is_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thing.py").write_text("import no_such_hub")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(MissingDependency, match=r"thing, which does not load \(No module named 'no_such_hub'\); run"):
        require("thing", purpose="this", install="it")


def test_what_is_not_installed_has_no_version() -> None:
    assert installed(["torch", "no-such-package"]) == {"torch": version("torch")}
