"""What the tests of the commands share."""

from __future__ import annotations

from collections.abc import Callable

Chase = Callable[..., tuple[int, str, str]]
"""The fixture that runs a command: (exit code, stdout, stderr)."""
