"""TensorRT: engines of it and of TensorRT for RTX, which run on torch's memory and streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from chase.artifact import Artifact
from chase.errors import CheckpointError, MissingDependency, RecipeError
from chase.runtimes.base import dtype_name, machine
from chase.runtimes.bindings import FLAVOURS, bindings, log_of, release
from chase.trust import HINT, trusted

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output of an engine: `shape` is without the batch."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} [b, {', '.join(map(str, self.shape))}] {dtype_name(self.dtype)}"


class Engine:
    """A TensorRT engine, which reads and writes torch's memory on its GPU.

    It computes on a stream of its own, in order with torch's current one, so `run` returns before the logits are there,
    as any CUDA operation does. Every call answers with a new tensor. In `torch.cuda.graph` that tensor belongs to the
    graph, and so does the context that was captured, with its memory for activations: it stays as it is until the
    engine is closed, and the engine goes on with another one. A batch size must run once before it is captured.
    `threads` means nothing to it.

    Raises:
        RecipeError: if the device is not a GPU.
        CheckpointError: if the engine was built by another version or for another kind of machine, is damaged, is not
            what its sidecar says, or carries code (version-compatible engines) and CHASE_TRUST_CODE is not 1.
        MissingDependency: if TensorRT, or a GPU that the engine was built for, is not here.
    """

    formats: ClassVar[tuple[str, ...]] = ("tensorrt",)
    flavour: ClassVar[str] = "tensorrt"

    def __init__(self, source: Artifact, *, device: torch.device, threads: int | None = None) -> None:
        trt = bindings(self.flavour)
        title = FLAVOURS[self.flavour].title
        _check_device(device, source.path.name)
        _check_version(source, f"{title} {trt.__version__}")
        _check_gpu(source, device)
        self.name = self.flavour
        self.device = device
        version = ".".join(map(str, release(trt.__version__)))
        self.provider = f"{title} {version} on {torch.cuda.get_device_name(device)}"
        self._log = log_of(trt)
        with torch.cuda.device(device):
            self._stream = torch.cuda.Stream(device)
            self._runtime, self._engine = _load(trt, source)
            self._context: Any = self._new_context()
        self._captured: list[Any] = []
        self._input, self._output = _ports(trt, self._engine, source)
        smallest, _, largest = self._engine.get_tensor_profile_shape(self._input.name, 0)
        self._batch_sizes: tuple[int, int] = (smallest[0], largest[0])
        self._ready: int | None = None  # the batch size that the context ran last

    @classmethod
    def check(cls) -> None:
        """Whether engines run on this machine.

        Raises:
            MissingDependency: if not.
        """
        bindings(cls.flavour)
        _check_gpu_is_here("an engine")

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise CheckpointError(f"{self.provider} cannot prepare the engine to run: {self._log.reason()}")
        return context

    def run(self, x: Tensor) -> Tensor:
        """The logits [b, classes] of x [b, c, h, w].

        Raises:
            RecipeError: if the engine takes no input of this shape, type or place, or fails to run it.
        """
        x = x.detach().contiguous()
        capturing = torch.cuda.is_current_stream_capturing()
        self._check(x, capturing)
        with torch.cuda.device(self.device):
            self._context = self._context or self._new_context()
            logits = torch.empty((len(x), *self._output.shape), dtype=self._output.dtype, device=x.device)
            current = torch.cuda.current_stream(self.device)
            self._stream.wait_stream(current)
            done = self._enqueue(x, logits)
            current.wait_stream(self._stream)
        if not done:
            raise RecipeError(f"{self.provider} cannot run an input of {list(x.shape)}: {self._log.reason()}")
        self._ready = len(x)
        if capturing:
            self._captured.append(self._context)
            self._context = self._ready = None
        return logits

    def _enqueue(self, x: Tensor, logits: Tensor) -> bool:
        context = self._context
        self._log.clear()
        return bool(
            context.set_input_shape(self._input.name, tuple(x.shape))
            and context.set_tensor_address(self._input.name, x.data_ptr())
            and context.set_tensor_address(self._output.name, logits.data_ptr())
            and context.execute_async_v3(self._stream.cuda_stream)
        )

    def _check(self, x: Tensor, capturing: bool) -> None:
        """Refuse what would make the engine read or write memory that is not its own."""
        port, (smallest, largest) = self._input, self._batch_sizes
        if x.shape[1:] != port.shape or x.dtype != port.dtype or x.device != self.device:
            raise RecipeError(f"the engine takes {port} on {self.device}, not {list(x.shape)} {x.dtype} on {x.device}")
        if not smallest <= len(x) <= largest:
            raise RecipeError(
                f"a batch of {len(x)} is outside {smallest} to {largest}, which the engine was built for; "
                f"export again with other batch sizes"
            )
        if capturing and len(x) != self._ready:
            raise RecipeError(f"run a batch of {len(x)} once before you capture it in a CUDA graph")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.synchronize()
        self._captured.clear()
        self._context = self._engine = self._runtime = None  # in this order


class RtxEngine(Engine):
    """An engine of TensorRT for RTX; the same in all else."""

    formats: ClassVar[tuple[str, ...]] = ("tensorrt-rtx",)
    flavour: ClassVar[str] = "tensorrt-rtx"


def _check_gpu_is_here(what: str) -> None:
    if not torch.cuda.is_available():
        raise MissingDependency(f"{what} runs on an NVIDIA GPU; torch finds none here")


def _check_device(device: torch.device, name: str) -> None:
    _check_gpu_is_here(f"{name} is an engine, which")
    if device.type != "cuda":
        raise RecipeError(f"{name} is an engine, which runs on a CUDA device, not on {device}; choose device cuda")


def _check_version(source: Artifact, title: str) -> None:
    """Refuse an engine of another version or kind of machine; `title` is the name and version of what is here."""
    name, built = source.path.name, source.built_for
    if (there := built.get("platform", machine())) != machine():
        raise CheckpointError(f"{name} was built on {there}, and this is {machine()}; export again here")
    version = built.get("tensorrt")
    if version and not built.get("version_compatible") and release(version) != release(title.split()[-1]):
        raise CheckpointError(f"{name} was built by version {version}, and here is {title}; export again here")
    if built.get("version_compatible") and not trusted():
        raise CheckpointError(
            f"{name} is version-compatible: to load it runs code out of it; if you trust the file, {HINT}"
        )


def _check_gpu(source: Artifact, device: torch.device) -> None:
    """Refuse an engine that was built for another GPU: it would not run, or not as it was measured."""
    gpu, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
    built, targets = source.built_for.get("gpu"), source.built_for.get("compute_capabilities") or []
    if (built or gpu) == gpu and (not targets or any(_covers(target, capability) for target in targets)):
        return
    wanted = " ".join(filter(None, (built, f"(compute capability {', '.join(targets)})" if targets else "")))
    found = f"{device} is {gpu} ({'.'.join(map(str, capability))})"
    raise MissingDependency(f"{source.path.name} was built for {wanted}, and {found}; export again for this GPU")


def _covers(target: str, capability: tuple[int, int]) -> bool:
    """Whether a target such as "8.6", or "8.0+" for that and all later ones, means this compute capability."""
    least = release(target.rstrip("+"))
    return capability >= least if target.endswith("+") else capability == least


def _load(trt: Any, source: Artifact) -> tuple[Any, Any]:
    """The runtime, which must outlive the engine, and the engine."""
    log = log_of(trt)
    log.clear()
    runtime = trt.Runtime(log)
    runtime.engine_host_code_allowed = bool(source.built_for.get("version_compatible"))
    engine = runtime.deserialize_cuda_engine(source.path.read_bytes())
    if engine is None:
        raise CheckpointError(f"{source.path.name} cannot be loaded: {log.reason()}; export again")
    return runtime, engine


def _ports(trt: Any, engine: Any, source: Artifact) -> tuple[Port, Port]:
    """The one input and the one output, which must be as the sidecar says."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [_port(trt, engine, name) for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [_port(trt, engine, name) for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
    channels, height, width = source.input_shape
    shape = (height, width, channels) if source.preprocessing else source.input_shape
    dtype = torch.uint8 if source.preprocessing else getattr(torch, source.input_dtype)
    said = Port(name=source.input_name, dtype=dtype, shape=shape)
    if inputs != [said] or len(outputs) != 1 or outputs[0].dtype != torch.float32:
        found = f"takes {', '.join(map(str, inputs))} and gives {', '.join(map(str, outputs))}"
        wanted = f"by its sidecar it takes {said} and gives float32"
        raise CheckpointError(f"{source.path.name} {found}; {wanted}; export again")
    return inputs[0], outputs[0]


def _port(trt: Any, engine: Any, name: str) -> Port:
    types = {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.BF16: torch.bfloat16,
        trt.DataType.FP8: torch.float8_e4m3fn,
        trt.DataType.INT8: torch.int8,
        trt.DataType.UINT8: torch.uint8,
        trt.DataType.INT32: torch.int32,
        trt.DataType.INT64: torch.int64,
        trt.DataType.BOOL: torch.bool,
    }
    dtype = engine.get_tensor_dtype(name)
    if dtype not in types:
        raise CheckpointError(f"the tensor {name!r} of the engine has the type {dtype}, which torch does not have")
    return Port(name=name, dtype=types[dtype], shape=tuple(engine.get_tensor_shape(name))[1:])
