"""What a command shows: tables and words for people on stdout, or one JSON document; progress goes to stderr."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Console:
    """How to speak, and the run to work in (None: the current one)."""

    json: bool = False
    quiet: bool = False
    run: Path | None = None

    def say(self, text: str) -> None:
        """A line for people, on stderr, so that stdout holds results alone."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def result(self, value: dict[str, Any]) -> None:
        """The command's result as JSON, where that was asked for."""
        if self.json:
            print(json.dumps(value, indent=2, allow_nan=False))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table on stdout; columns of numbers are set to the right."""
        if self.json or self.quiet:
            return
        from rich.console import Console as Rich
        from rich.table import Table

        table = Table(
            title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", show_header=any(columns)
        )
        for index, column in enumerate(columns):
            numbers = all(str(row[index])[:1] in "0123456789-–" for row in rows)  # an empty cell is in it as well
            table.add_column(column, justify="right" if numbers else "left", overflow="fold")
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        width = None if sys.stdout.isatty() else 160
        Rich(file=sys.stdout, width=width, highlight=False, markup=False).print(table)
        print()

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator[Advance]:
        """A bar on stderr, to be told (done, all); a line every ten seconds where stderr is no terminal."""
        if self.quiet:
            yield lambda done, total: None
        elif sys.stderr.isatty():
            with _bar(what) as advance:
                yield advance
        else:
            yield _lines(what)


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Advance]:
    from rich.console import Console as Rich
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Drawn only when told of progress: a thread that draws by itself would disturb what is being measured.
    with Progress(*columns, console=Rich(stderr=True), transient=True, auto_refresh=False) as progress:
        task = progress.add_task(what, total=None)
        due = _every(0.2)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)
            if due() or done == total:
                progress.refresh()

        yield advance


def _lines(what: str) -> Advance:
    due = _every(10)

    def advance(done: int, total: int) -> None:
        if due():
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)

    return advance


def _every(seconds: float) -> Callable[[], bool]:
    """A question whose answer is yes once in `seconds`."""
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        if time.monotonic() - last < seconds:
            return False
        last = time.monotonic()
        return True

    return due


def millions(number: float) -> str:
    """A count in millions, for tables."""
    return f"{number / 1e6:.2f} M" if number >= 1e5 else f"{number / 1e6:.4f} M"


def percent(share: float | None, digits: int = 2) -> str:
    """A percentage that is one already."""
    return "–" if share is None else f"{share:.{digits}f} %"
