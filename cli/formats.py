"""What `chase export --list` shows: the formats, and what works on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chase.cli.console import Console


def show(console: Console) -> None:
    """Every format: its file, precisions and settings, and what is missing to write or to run it here."""
    from chase.exporters import EXPORTERS
    from chase.runtimes import available

    able = available()
    found = {name: described(name, able) for name in EXPORTERS}
    console.result({"formats": found})
    columns = ("format", "file", "precisions", "writes here", "runs here", "settings (-o)")
    rows = [
        (
            name,
            f"*{each['suffix']}",
            ", ".join(each["precisions"]),
            each["missing"] or "✓",
            "; ".join(f"{runtime}: {why or '✓'}" for runtime, why in each["runtimes"].items()),
            ", ".join(f"{key}={value}" for key, value in each["settings"].items()),
        )
        for name, each in found.items()
    ]
    console.table("formats", columns, rows)


def described(name: str, able: Mapping[str, str | None]) -> dict[str, Any]:
    """What there is to say of one format; `able` says what keeps each runtime from working here."""
    from chase.exporters import EXPORTERS
    from chase.runtimes import RUNTIMES

    exporter = EXPORTERS[name]
    return {
        "about": exporter.about,
        "suffix": exporter.suffix,
        "precisions": list(exporter.precisions),
        "missing": exporter.missing(),
        "runtimes": {runtime: able[runtime] for runtime, entry in RUNTIMES.items() if name in entry.formats},
        "settings": exporter.settings(),
    }
