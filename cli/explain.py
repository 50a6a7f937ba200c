"""What an artifact that lost accuracy does differently, and what is to be known of measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from chase.cli.console import Console

if TYPE_CHECKING:
    from chase.artifact import Artifact
    from chase.benchmarks import Report, Row
    from chase.checkpoint import Network

IMAGES = 64


def explainer(paths: Mapping[str, Path], data: str | None) -> Callable[[Row], str | None]:
    """A function that names the step or the layer at which the file of a row departs from its network.

    `paths` are the files by the names that rows give them. It answers None where the file's network is not beside it.
    """

    def explain(row: Row) -> str | None:
        from chase.artifact import Artifact
        from chase.benchmarks.gate import what_differs
        from chase.cli.bench import parents
        from chase.cli.images import splits, spread
        from chase.files import sha256

        path = paths.get(row.artifact)
        if path is None or path.suffix == ".pt":
            return None
        artifact = Artifact.load(path)
        for network in parents([path]):
            if sha256(network.path) == artifact.parent_sha256:
                images = spread(splits(network.path, data)[1], IMAGES)
                return what_differs(artifact, network, images)
        return None

    return explain


def warn_if_changed(console: Console, source: Artifact | Network) -> None:
    """Say so where a file is not the one that its description is of."""
    from chase.artifact import Artifact

    if isinstance(source, Artifact) and not source.is_whole():
        console.say(
            f"{source.path} is not the file that was exported (its SHA-256 has changed): what its description says, "
            "MACs and parity too, is of another; export again"
        )


def warn(console: Console, report: Report) -> None:
    """Say every warning of a report once, with what it is about."""
    about: dict[str, dict[str, None]] = {}
    for row in report.rows:
        for words in row.warnings:
            about.setdefault(words, {})[f"{row.artifact} on {row.runtime}"] = None
    for words, who in about.items():
        names = list(who)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        console.say(f"{names[0]}{more}: {words}")
