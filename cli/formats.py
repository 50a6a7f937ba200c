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
    columns = ("format", "file", "precisions", "written here", "run here by")
    rows = [(name, f"*{each['suffix']}", ", ".join(each["precisions"]), *_here(each)) for name, each in found.items()]
    console.table("formats", columns, rows)
    settings = [
        (name, ", ".join(f"{key}={_plain(value)}" for key, value in each["settings"].items()))
        for name, each in found.items()
    ]
    console.table("settings and their defaults", ("format", "-o"), settings)
    console.say("`chase doctor` says what keeps the others from working")


def _here(described: dict[str, Any]) -> tuple[str, str]:
    """Whether a format can be written on this machine, and the runtimes that run it."""
    able = [runtime for runtime, why in described["runtimes"].items() if why is None]
    return "✗" if described["missing"] else "✓", ", ".join(able) or "–"


def _plain(value: Any) -> str:
    """A default as `-o` takes it, as far as it does: 1:8:32 for batch sizes, nothing for what is left open."""
    if isinstance(value, tuple):
        return ":".join(map(str, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


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
