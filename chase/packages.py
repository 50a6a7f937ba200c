"""Packages that may or may not be there: what a feature needs, and which versions are installed."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from chase.errors import MissingDependency, reason


def require(module: str, *, purpose: str, install: str, package: str | None = None) -> Any:
    """The imported module; `package` is what messages call it where that is another name.

    Raises:
        MissingDependency: if it is not installed or cannot be loaded.
    """
    needed = f"{purpose} needs the package {package or module}"
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name in (*_parents(module), package)
        why = "" if absent else f", which does not load ({reason(error)})"
        raise MissingDependency(f"{needed}{why}; run: pip install {install}") from error


def _parents(module: str) -> list[str]:
    """A module and the packages that it lies in."""
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def installed(packages: Iterable[str]) -> dict[str, str]:
    """The version of each of these packages that is installed, in their order."""
    found: dict[str, str] = {}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
