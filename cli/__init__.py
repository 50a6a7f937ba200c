"""The command line. Each command reads the file that the former one wrote and calls one library function.

Exit codes: 0 ok · 1 failure · 2 bad input or usage · 3 a gate was not met · 4 a backend or optional package is
missing · 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer

from chase import __version__
from chase.cli import (
    analyze,
    bench,
    compare,
    demo,
    doctor,
    eval,
    export,
    inspect,
    paper,
    recipes,
    report,
    run,
    slim,
    train,
    verify,
)
from chase.cli.console import Console
from chase.errors import ChaseError, RecipeError
from chase.trust import VARIABLE

ANYWHERE = "Anywhere on the line: --run DIR (the run to work in), --json, --quiet, --debug, --trust-code."

app = typer.Typer(
    name="chase",
    help="Train a network sparse, cut it down to a small dense-shaped one, and ship it with numbers to trust.",
    epilog=ANYWHERE,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode=None,
)
INTERRUPTED = 130
COMMANDS = {
    "train": train,
    "slim": slim,
    "export": export,
    "verify": verify,
    "bench": bench,
    "report": report,
    "compare": compare,
    "analyze": analyze,
    "run": run,
    "demo": demo,
    "inspect": inspect,
    "eval": eval,
    "paper": paper,
    "recipes": recipes,
    "doctor": doctor,
}
for name, module in COMMANDS.items():
    app.command(name, epilog=ANYWHERE)(module.command)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version and leave.")
) -> None:
    """Train, slim, export, measure."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code; every error is one line on stderr."""
    try:
        arguments, flags, folder = hoist(list(sys.argv[1:] if argv is None else argv))
    except RecipeError as error:
        sys.exit(_report(str(error), error.exit_code, False))
    if folder is None and (named := os.environ.get("CHASE_RUN")):
        folder = Path(named)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started, one speaks
    console = Console(json="--json" in flags and first, quiet="--quiet" in flags or not first, run=folder)
    if "--trust-code" in flags:
        os.environ[VARIABLE] = "1"
    sys.exit(_run(arguments, console, debug="--debug" in flags))


def hoist(arguments: list[str]) -> tuple[list[str], set[str], Path | None]:
    """The global flags and the run's folder, taken out of wherever they stand before `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept, flags, folder = [], set(), None
    pending = iter(arguments[:end])
    for argument in pending:
        if argument in ("--json", "--quiet", "--debug", "--trust-code"):
            flags.add(argument)
        elif argument == "--run":
            folder = _path(next(pending, ""))
        elif argument.startswith("--run="):
            folder = _path(argument.removeprefix("--run="))
        else:
            kept.append(argument)
    return kept + arguments[end:], flags, folder


def _path(text: str) -> Path:
    if not text:
        raise RecipeError("--run needs a folder, as in --run runs/mine")
    return Path(text)


def _run(arguments: list[str], console: Console, *, debug: bool) -> int:
    try:
        code = app(arguments, standalone_mode=False, obj=console)
    except ChaseError as error:
        return _report(str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except OSError as error:
        reason = error.strerror or str(error)
        return _report(
            f"cannot read or write {error.filename or 'a file'}: {reason}; check the path and the disk", 1, debug
        )
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of the command-line library, whichever it is
            return _report(f"{error.format_message().rstrip('.')}; see `{_page(arguments)} --help`", 2, debug)
        return _report(f"{type(error).__name__}: {error}; run again with --debug and report it", 1, debug)
    if code == INTERRUPTED:  # what the command-line library makes of Ctrl-C
        return _report("interrupted; a training continues where it stopped with `chase train --resume`", code, False)
    return code if isinstance(code, int) else 0


def _page(arguments: list[str]) -> str:
    """The command whose help tells how to write `arguments`."""
    return f"chase {arguments[0]}" if arguments and arguments[0] in COMMANDS else "chase"


def _report(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    typer.echo("chase: " + " ".join(message.split()), err=True)
    return code
