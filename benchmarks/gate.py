"""The accuracy gate: no artifact may lose more than was allowed against the fp32 network that it came from."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from chase.artifact import Artifact
from chase.benchmarks.report import Report, Row
from chase.checkpoint import Network
from chase.errors import AccuracyError, ParityError, RecipeError, reason

MAX_DROP = 0.5
"""Points of top-1 accuracy that an artifact may lose."""

Explain = Callable[[Row], str | None]


def check_accuracy(report: Report, *, max_drop: float | None = MAX_DROP, explain: Explain | None = None) -> None:
    """Refuse a report in which an artifact is more than `max_drop` points below its network; None refuses nothing.

    Save the report first: it shows what was lost. `explain` may say what differs, for the end of the message. Rows
    without an accuracy, and those whose network was not measured, pass.

    Raises:
        AccuracyError: naming the worst artifact, its accuracy and what was allowed, and how many others fail.
        RecipeError: if `max_drop` is negative.
    """
    if max_drop is None:
        return
    if max_drop < 0:
        raise RecipeError(f"the accuracy drop allowed is {max_drop}; it must be 0 or more points")
    lost = {(row.artifact, row.runtime): (drop, row) for row in report.rows if (drop := drop_of(row)) is not None}
    failed = sorted((each for each in lost.values() if each[0] > max_drop), key=lambda each: -each[0])
    if not failed:
        return
    drop, row = failed[0]
    text = (
        f"{row.artifact} on {row.runtime} has {row.accuracy:.2f} % top-1, {drop:.2f} points below its fp32 network "
        f"({row.reference_accuracy:.2f} %); {max_drop:g} points are allowed"
    )
    why = explain(row) if explain else None
    others = f" ({len(failed) - 1} more fail)" if len(failed) > 1 else ""
    raise AccuracyError(f"{text}{others}: {why}" if why else f"{text}{others}; `chase verify` says what differs")


def drop_of(row: Row) -> float | None:
    """How many points of top-1 accuracy a row lost against its fp32 network; None where one of the two is unknown."""
    if row.accuracy is None or row.reference_accuracy is None:
        return None
    return row.reference_accuracy - row.accuracy


def what_differs(artifact: Artifact, network: Network, images: Tensor) -> str:
    """The step or the layer at which a file departs from its network, on normalised `images` [n, c, h, w].

    The first of: it is not the file that was exported, it states another normalisation, its first layer whose answer
    is another. Raises nothing: this is the end of a message.
    """
    from chase.exporters import verify  # with it come all exporters, which a gate that holds does not need

    try:
        parity = verify(artifact, network, samples=images, isolated=False)
    except ParityError as error:
        return str(error)
    except Exception as error:  # whatever the file or its library does
        return f"what differs cannot be found ({reason(error)})"
    return f"its answers are within the parity gate on {parity.samples} images: the precision itself loses the accuracy"
