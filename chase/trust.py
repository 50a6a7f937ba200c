"""Trust: code that comes with a file runs only if the user has said that the file is trusted."""

from __future__ import annotations

import os

VARIABLE = "CHASE_TRUST_CODE"
HINT = f"pass --trust-code (or set {VARIABLE}=1)"
"""How the user says so, for the end of a message."""


def trusted() -> bool:
    """Whether the user has said so."""
    return os.environ.get(VARIABLE) == "1"
