"""ONNX Runtime, on the CPU or on CUDA, and never on one when the other was asked for."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from chase.errors import CheckpointError, MissingDependency, RecipeError
from chase.runtimes.base import reason, require

if TYPE_CHECKING:
    from typing_extensions import Self

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"


class OnnxRuntime:
    """An ONNX file with one input and one output.

    Without `threads` it takes as many as torch does, so that the two can be compared.

    Raises:
        CheckpointError: if the file is missing, truncated or no ONNX model.
        MissingDependency: if onnxruntime is not installed, or cannot use the GPU that was asked for.
    """

    formats: ClassVar[tuple[str, ...]] = ("onnx",)

    def __init__(self, source: Path, *, device: torch.device, threads: int | None = None) -> None:
        self.name = "onnxruntime"
        self.device = device
        session = _session(source, device, threads or torch.get_num_threads())
        self.provider: str = session.get_providers()[0]
        self._input, self._output = session.get_inputs()[0], session.get_outputs()[0]
        self._session: Any = session

    def run(self, x: Tensor) -> Tensor:
        """The logits [b, classes] of x [b, c, h, w].

        Raises:
            RecipeError: if the model takes no input of this shape or type.
        """
        run = self._run_arrays if self.device.type == "cpu" else self._run_bound
        try:
            return run(x)
        except Exception as error:  # each of onnxruntime's errors derives from Exception alone
            given = f"an input of {list(x.shape)} {x.dtype}"
            wanted = f"the model takes {self._input.shape} {self._input.type}"
            raise RecipeError(f"onnxruntime cannot run {given}; {wanted} ({reason(error)})") from error

    def _run_arrays(self, x: Tensor) -> Tensor:
        """Through views of the same memory."""
        array = x.detach().contiguous().numpy()
        (logits,) = self._session.run([self._output.name], {self._input.name: array})
        return torch.from_numpy(logits)

    def _run_bound(self, x: Tensor) -> Tensor:
        """From and into memory that torch owns on the device; returns when the logits are there."""
        x = x.detach().contiguous()
        logits = torch.empty((len(x), *self._output.shape[1:]), dtype=torch.float32, device=x.device)
        if x.is_cuda:  # the session has a stream of its own
            torch.cuda.current_stream(x.device).synchronize()
        binding = self._session.io_binding()
        for bind, name, tensor in (
            (binding.bind_input, self._input.name, x),
            (binding.bind_output, self._output.name, logits),
        ):
            bind(name, x.device.type, x.device.index or 0, "float32", list(tensor.shape), tensor.data_ptr())
        self._session.run_with_iobinding(binding)
        return logits

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session = None


def _session(path: Path, device: torch.device, threads: int) -> Any:
    install = "onnxruntime" if device.type == "cpu" else "'chase-sparse[gpu]'"
    onnxruntime = require("onnxruntime", purpose="running an ONNX file", install=install)
    wanted = _CPU if device.type == "cpu" else _CUDA
    if wanted not in onnxruntime.get_available_providers():
        raise MissingDependency(f"this onnxruntime has no {wanted}; run: pip install {install}, or choose device cpu")
    options = {} if wanted == _CPU else {"device_id": str(device.index), "use_tf32": "0"}
    try:
        session = onnxruntime.InferenceSession(
            str(path), sess_options=_settings(onnxruntime, threads), providers=[(wanted, options)]
        )
    except Exception as error:  # each of onnxruntime's errors derives from Exception alone
        raise CheckpointError(f"{path} is not a whole ONNX model ({reason(error)}); export again") from error
    if (loaded := session.get_providers()[0]) != wanted:
        fix = "its CUDA and cuDNN libraries do not load; install those it was built for, or choose device cpu"
        raise MissingDependency(f"onnxruntime runs {path.name} on {loaded}, not on {wanted}: {fix}")
    return session


def _settings(onnxruntime: Any, threads: int) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4  # what fails is raised; the rest would go to stderr
    # threads that spin on after a call would slow down whatever is timed next in this process
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    return settings
