"""What every runtime promises, and what they share: checks of what they are given, and torch's settings."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor

from chase.artifact import Artifact
from chase.errors import ChaseError, MissingDependency, RecipeError, reason

if TYPE_CHECKING:
    from typing_extensions import Self


class Runtime(Protocol):
    """Runs one network or file; a context manager that holds its memory and settings while it is open.

    `provider` says what really computes, such as "cpu", "cuda:0" or "CPUExecutionProvider".
    """

    name: str
    provider: str
    device: torch.device

    def run(self, x: Tensor) -> Tensor:
        """The logits [b, classes], float32, of x [b, c, h, w], float32; both are on `device`.

        A file with its preprocessing inside takes x [b, h, w, c], uint8, and answers with probabilities.

        Raises:
            RecipeError: if it cannot run an input of this shape, type or place.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class RuntimeType(Protocol):
    """An entry of RUNTIMES: opens a source whose format is one of `formats`.

    The source is an nn.Module for the format "module" and an Artifact for every other one. Further keyword arguments
    are its own options. It may have a function `check()`, which raises MissingDependency where it cannot work.
    """

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that it can run."""
        ...

    def __call__(self, source: Any, *, device: torch.device, threads: int | None) -> Runtime: ...


class BaseRuntime:
    """A runtime whose subclasses say in `compute` how an input that fits becomes logits."""

    formats: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        name: str,
        *,
        provider: str,
        device: torch.device,
        threads: int | None = None,
        artifact: Artifact | None = None,
    ) -> None:
        self.name = name
        self.provider = provider
        self.device = device
        self.artifact = artifact
        self._threads = threads
        self._open = contextlib.ExitStack()

    def compute(self, x: Tensor) -> Tensor:
        """The logits of an input that fits the file."""
        raise NotImplementedError

    def run(self, x: Tensor) -> Tensor:
        """The logits [b, classes], float32, of an input as `chase.runtimes.base.Runtime.run` describes it.

        Raises:
            RecipeError: if it cannot run an input of this shape, type or place.
        """
        if self.artifact is not None:
            check_input(x, self.artifact)
        if x.device != self.device:
            raise RecipeError(f"{self.name} runs on {self.device}; this input is on {x.device}")
        try:
            return self.compute(x.detach()).float()
        except (torch.OutOfMemoryError, ChaseError):
            raise
        except Exception as error:  # each library has errors of its own
            given = f"an input of {list(x.shape)} {dtype_name(x.dtype)}"
            raise RecipeError(f"{self.name} cannot run {given}: {reason(error)}") from error

    def __enter__(self) -> Self:
        self._open.enter_context(torch_settings(self._threads))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()


def check_input(x: Tensor, artifact: Artifact) -> None:
    """Refuse what the file does not take: some libraries would compute something from it all the same.

    Raises:
        RecipeError: if the shape, the type or the batch size is another one than the sidecar says.
    """
    shape: tuple[Any, ...] = artifact.input_shape
    if artifact.settings.get("dynamic_size"):
        shape = (shape[0], *("any" for _ in shape[1:]))
    if artifact.preprocessing:
        shape = (*shape[1:], shape[0])
    dtype = torch.uint8 if artifact.preprocessing else torch.float32
    fits = len(shape) == x.ndim - 1 and all(map(lambda side, given: side in ("any", given), shape, x.shape[1:]))
    name = artifact.path.name
    if not fits or x.dtype != dtype or not len(x):
        wanted = f"[batch, {', '.join(map(str, shape))}] {dtype_name(dtype)}"
        raise RecipeError(f"{name} takes an input of {wanted}, not {list(x.shape)} {dtype_name(x.dtype)}")
    if (sizes := artifact.batch_sizes) and not sizes[0] <= len(x) <= sizes[-1]:
        limits = f"batches of {sizes[0]} to {sizes[-1]}"
        raise RecipeError(f"{name} takes {limits}, not {len(x)}; export again with other batch sizes")


def dtype_name(dtype: torch.dtype) -> str:
    """A type without its module, such as "float32", which is also what NumPy calls it."""
    return str(dtype).removeprefix("torch.")


def machine() -> str:
    """The kind of machine that compiled code is bound to, such as "Linux x86_64"."""
    return f"{platform.system()} {platform.machine()}"


def resolve_device(device: torch.device | str) -> torch.device:
    """The device with its index, checked to be there.

    Raises:
        RecipeError: if it is not a device's name, or neither a CPU nor a CUDA device.
        MissingDependency: if this machine has no such GPU.
    """
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise RecipeError(f"no device named {str(device)!r}; known: cpu, cuda, cuda:0, …") from error
    if found.type == "cpu":
        return torch.device("cpu")
    if found.type != "cuda":
        raise RecipeError(f"no runtime works on {found.type!r}; choose cpu or cuda")
    index = found.index or 0
    if index >= torch.cuda.device_count():
        present = torch.cuda.device_count()
        raise MissingDependency(f"no device {device}: torch finds {present} CUDA GPUs here; choose device cpu")
    return torch.device("cuda", index)


_TF32 = ContextVar("tf32", default=False)


def tf32_allowed() -> bool:
    """Whether an enclosing `torch_settings` allows TF32."""
    return _TF32.get()


@contextlib.contextmanager
def torch_settings(threads: int | None = None, *, tf32: bool | None = None) -> Iterator[None]:
    """Torch on `threads` CPU threads (None: as it is) and with fp32 meaning fp32; put back after.

    With `tf32` a GPU may round the factors of fp32 products to 10 bits, in torch and in ONNX Runtime's CUDA provider;
    None is what an enclosing block says, and off where there is none.

    Raises:
        RecipeError: if `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise RecipeError(f"threads is {threads}; it must be 1 or more")
    backends: Any = torch.backends
    precisions = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
    before = torch.get_num_threads(), [entry.fp32_precision for entry in precisions]
    outer = tf32_allowed()
    allowed = outer if tf32 is None else tf32
    _TF32.set(allowed)
    try:
        torch.set_num_threads(threads or before[0])
        backends.cudnn.allow_tf32 = allowed  # torch.export reads this, and fails where fp32_precision was set instead
        backends.cuda.matmul.fp32_precision = "tf32" if allowed else "ieee"
        yield
    finally:
        _TF32.set(outer)
        torch.set_num_threads(before[0])
        backends.cudnn.allow_tf32 = "tf32" in before[1][:2]
        for entry, precision in zip(precisions, before[1], strict=True):
            if entry.fp32_precision != precision:
                entry.fp32_precision = precision
