"""The errors a caller can catch. Every message says what is wrong, the value, and what to do.

ChaseError                       exit 1
├── RecipeError                  exit 2   bad input: a setting, a file, a value out of range (also ValueError)
│   └── UnknownName              exit 2   a name that no registry holds (also KeyError)
├── CheckpointError              exit 2   a file is missing, truncated, foreign or unsafe to load
├── DataError                    exit 2   a data set is missing or has the wrong form
├── OutputError                  exit 1   a result could not be written
├── TraceError                   exit 1   torch.export cannot trace the model
├── ExportError                  exit 1   an exporter failed
├── GateError                    exit 3   a promise was not met
│   ├── EquivalenceError         exit 3   the slim network does not equal the masked one
│   ├── ParityError              exit 3   an artifact does not answer as its network does
│   └── AccuracyError            exit 3   a network lost more accuracy than was allowed
└── MissingDependency            exit 4   a package or a backend is not there (also ImportError)
"""


class ChaseError(Exception):
    """Anything that Chase refuses to do, with the exit code of the command line."""

    exit_code = 1

    def __str__(self) -> str:
        """The message itself, also where a second base class (KeyError) would quote it."""
        return str(self.args[0]) if self.args else ""


class RecipeError(ChaseError, ValueError):
    """A setting or an argument is wrong."""

    exit_code = 2


class UnknownName(RecipeError, KeyError):
    """No entry has this name."""


class CheckpointError(ChaseError):
    """A checkpoint cannot be used."""

    exit_code = 2


class DataError(ChaseError):
    """A data set is missing or malformed."""

    exit_code = 2


class OutputError(ChaseError):
    """A result could not be written; what stood there before is untouched."""


class TraceError(ChaseError):
    """The model cannot be traced by `torch.export`."""


class ExportError(ChaseError):
    """An exporter failed."""


class GateError(ChaseError):
    """A promised bound was not met."""

    exit_code = 3


class EquivalenceError(GateError):
    """The slim network and the masked one differ."""


class ParityError(GateError):
    """An exported artifact and its network differ."""


class AccuracyError(GateError):
    """An accuracy gate was not met."""


class MissingDependency(ChaseError, ImportError):
    """An optional package or backend is not installed."""

    exit_code = 4


def reason(error: BaseException) -> str:
    """The first line of what went wrong at the root of `error`, for use inside a one-line message."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def explained(error: Exception) -> str:
    """What went wrong, in one line; errors that are not Chase's own say of what kind they are."""
    own = isinstance(error, ChaseError)
    return " ".join(str(error).split()) if own else f"{type(error).__name__}: {reason(error)}"
