"""ONNX Runtime's execution providers: how each is asked for, and whether it is what really runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from chase.artifact import Artifact
from chase.errors import CheckpointError, MissingDependency, RecipeError, reason
from chase.packages import require
from chase.runtimes.base import tf32_allowed

_GPU = "'chase-sparse[gpu]'"
_RTX_PACKAGE = "onnxruntime-ep-nv-tensorrt-rtx"
_SHAPE_OPERATORS = (
    "Shape Size Slice Gather Concat Unsqueeze Squeeze Cast Add Sub Mul Div Mod Range Min Max Equal Where ReduceProd "
    "ConstantOfShape Expand Reshape Identity"
)
SHAPE_OPERATORS = frozenset(_SHAPE_OPERATORS.split())
"""What providers for GPUs leave to the CPU on purpose: arithmetic with the sides of tensors."""


@dataclass(frozen=True, kw_only=True)
class Provider:
    """An execution provider as it is to be used. `plugin` registers it where onnxruntime does not have it built in.

    `note` is what a reader of its numbers must know; `hint` is what may be missing where it does not load.
    """

    name: str
    note: str = ""
    install: str = "onnxruntime"
    hint: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    device: int | None = None
    graph_option: str = "gpu_graph_id"
    plugin: Callable[[], str] | None = None


CPU = Provider(name="CPUExecutionProvider")


def cuda_provider(source: Artifact | None, device: torch.device, *, cuda_graph: bool = False) -> Provider:
    """CUDA, in fp32 without TF32 unless the artifact says so, or else an enclosing `torch_settings`."""
    tf32 = bool(source.settings.get("tf32", tf32_allowed()) if source else tf32_allowed())
    return Provider(
        name="CUDAExecutionProvider",
        install=_GPU,
        hint="its CUDA and cuDNN libraries do not load; install those it was built for",
        device=device.index,
        options={
            "device_id": str(device.index),
            "use_tf32": _flag(tf32),
            "enable_cuda_graph": _flag(cuda_graph),
        },
    )


def tensorrt_provider(
    source: Artifact | None,
    device: torch.device,
    *,
    cuda_graph: bool = False,
    batch_sizes: tuple[int, ...] | None = None,
    cache: Path | None = None,
) -> Provider:
    """TensorRT inside ONNX Runtime. It has no option for TF32, which TensorRT itself has on.

    Raises:
        RecipeError: if the device is no GPU.
    """
    _check_device("onnxruntime-tensorrt", device)
    precision = source.precision if source else "fp32"
    stored = {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1"}
    folders = {name: str(cache) for name in ("trt_engine_cache_path", "trt_timing_cache_path")}
    return Provider(
        name="TensorrtExecutionProvider",
        note=", TF32 on",
        install=_GPU,
        hint="its TensorRT libraries do not load; install the TensorRT that it was built for",
        device=device.index,
        options={
            "device_id": str(device.index),
            "trt_cuda_graph_enable": _flag(cuda_graph),
            # the provider's networks are weakly typed: without these it would compute in fp32 all the same
            "trt_fp16_enable": _flag(precision.endswith("fp16")),
            "trt_bf16_enable": _flag(precision == "bf16"),
            "trt_int8_enable": _flag(precision.startswith("int8")),
        }
        | _profile(source, batch_sizes, prefix="trt_profile")
        | (stored | folders if cache else {}),
    )


def rtx_provider(
    source: Artifact | None,
    device: torch.device,
    *,
    cuda_graph: bool = False,
    batch_sizes: tuple[int, ...] | None = None,
    cache: Path | None = None,
) -> Provider:
    """TensorRT for RTX, a plug-in of ONNX Runtime 1.24 and later. It has no option for TF32 either.

    Raises:
        RecipeError: if the device is no GPU.
    """
    _check_device("onnxruntime-tensorrt-rtx", device)
    return Provider(
        name="NvTensorRTRTXExecutionProvider",
        note=", TF32 on",
        install=f"{_RTX_PACKAGE} 'onnxruntime>=1.24'",
        hint="TensorRT for RTX does not know this GPU, or its driver is too old",
        device=device.index,
        graph_option="cuda_graph_annotation_id",
        options={"enable_cuda_graph": _flag(cuda_graph)}
        | _profile(source, batch_sizes, prefix="nv_profile")
        | ({"nv_runtime_cache_path": str(cache)} if cache else {}),
        plugin=_register_rtx,
    )


def package() -> Any:
    """The package onnxruntime. Torch was imported before it: it is how the CUDA libraries of its wheels are found.

    Raises:
        MissingDependency: if it is not installed.
    """
    return require("onnxruntime", purpose="running an ONNX file", install="onnxruntime")


BROKEN_OPTIMIZERS = {
    "fp16": ["NchwcTransformer"],
    "int8": ["QDQS8ToU8Transformer"],
    "int8-fp16": ["NchwcTransformer", "QDQS8ToU8Transformer", "WeightBiasQuantization"],
}
"""By precision, passes of ONNX Runtime 1.31 on the CPU that crash (attention in fp16) or change answers: products of
unsigned activations overflow (a ViT in int8 falls from 30.7 to 16.4 dB), and scales in fp16 are lost."""


def open_session(model: Path | bytes, provider: Provider, threads: int, *, precision: str = "fp32") -> Any:
    """A session of `model` in which `provider` computes everything but the sides of tensors.

    What ONNX Runtime is known to get wrong in a `precision` on the CPU is switched off; for fp8 that is every pass.

    Raises:
        CheckpointError: if the file is missing, truncated or no ONNX model.
        MissingDependency: if the provider is not there, does not load, or has no kernel for one of the operators.
    """
    start = functools.partial(_start, package(), model, provider, threads, precision)
    name = model.name if isinstance(model, Path) else "the model"
    try:
        session, recorded = _start_strictly(start, provider)
    except MissingDependency:
        raise
    except Exception as error:  # each of onnxruntime's errors derives from Exception alone
        raise _explained(error, name, provider) from error
    if (loaded := session.get_providers()[0]) != provider.name:
        fix = f"{provider.hint}, or choose device cpu"
        raise MissingDependency(f"onnxruntime runs {name} on {loaded}, not on {provider.name}: {fix}")
    if recorded and (foreign := _elsewhere(session, provider)):
        raise MissingDependency(f"{provider.name} leaves {', '.join(foreign)} of {name} to the CPU; choose device cpu")
    return session


def check_provider(provider: Provider) -> None:
    """Try a provider on the smallest of models.

    Raises:
        MissingDependency: if it does not work.
    """
    parser = require("onnx.parser", purpose="trying ONNX Runtime", install="onnx")
    graph = "probe (float[N] x) => (float[N] y) { y = Relu(x) }"
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {graph}')
    open_session(proto.SerializeToString(), provider, 1)


def _flag(on: bool) -> str:
    return "1" if on else "0"


def _check_device(name: str, device: torch.device) -> None:
    if device.type != "cuda":
        raise RecipeError(f"{name} runs on a CUDA device, not on {device}; choose device cuda")


def _profile(source: Artifact | None, batch_sizes: tuple[int, ...] | None, *, prefix: str) -> dict[str, str]:
    """The range of shapes that an engine is built for."""
    sizes = batch_sizes or (source.batch_sizes if source else None)
    if source is None or not sizes:
        return {}
    shape = source.input_shape
    sides = (*shape[1:], shape[0]) if source.preprocessing else shape
    return {
        f"{prefix}_{bound}_shapes": f"{source.input_name}:{'x'.join(map(str, (size, *sides)))}"
        for bound, size in zip(("min", "opt", "max"), sizes, strict=True)
    }


def _register_rtx() -> str:
    """Make the plug-in known to this process; gives the provider's name."""
    plugin = require(_RTX_PACKAGE.replace("-", "_"), purpose="the provider TensorRT for RTX", install=_RTX_PACKAGE)
    onnxruntime, name = package(), str(plugin.get_ep_name())
    if not any(each.ep_name == name for each in onnxruntime.get_ep_devices()):
        try:
            onnxruntime.register_execution_provider_library(name, plugin.get_library_path())
        except Exception as error:
            if "already registered" not in str(error):
                why = str(error).rpartition("error: ")[2]
                raise MissingDependency(f"{name} does not load: {why}; it needs a GPU and NVIDIA's driver") from error
    return name


def _start(
    onnxruntime: Any,
    model: Path | bytes,
    provider: Provider,
    threads: int,
    precision: str,
    entries: dict[str, str],
) -> Any:
    settings = onnxruntime.SessionOptions()
    if provider.name == CPU.name and precision == "fp8":
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4  # what fails is raised; the rest would go to stderr
    # threads that spin on after a call would slow down whatever is timed next in this process
    for name, value in ({"session.force_spinning_stop": "1"} | entries).items():
        settings.add_session_config_entry(name, value)
    providers = _attach(onnxruntime, settings, provider)
    content = model if isinstance(model, bytes) else str(model)
    # left alone, it would print an error and go on with another provider, now or at a call
    broken = BROKEN_OPTIMIZERS.get(precision) if provider.name == CPU.name else None
    options = {"enable_fallback": 0} | ({"disabled_optimizers": broken} if broken else {})
    session = onnxruntime.InferenceSession(content, sess_options=settings, providers=providers, **options)
    session.disable_fallback()  # before 1.24 the argument is ignored
    return session


def _attach(onnxruntime: Any, settings: Any, provider: Provider) -> list[Any] | None:
    """The providers to be asked for; None where the settings say it."""
    if provider.plugin is None:
        if provider.name not in onnxruntime.get_available_providers():
            how = f"run: pip install {provider.install}, or choose device cpu"
            raise MissingDependency(f"this onnxruntime has no {provider.name}; {how}")
        return [(provider.name, dict(provider.options))]
    name = provider.plugin()
    devices = [each for each in onnxruntime.get_ep_devices() if each.ep_name == name]
    if len(devices) <= (provider.device or 0):
        raise MissingDependency(f"{name} finds {len(devices)} GPUs that it can use here: {provider.hint}")
    settings.add_provider_for_devices([devices[provider.device or 0]], dict(provider.options))
    return None


def _explained(error: Exception, name: str, provider: Provider) -> Exception:
    if type(error).__name__ == "NotImplemented":
        why = reason(error).rpartition(" : ")[2]
        fix = "choose another device or precision"
        return MissingDependency(f"{provider.name} cannot run {name}: {why}; {fix}")
    return CheckpointError(f"{name} is not a whole ONNX model ({reason(error)}); export again")


def _start_strictly(start: Callable[[dict[str, str]], Any], provider: Provider) -> tuple[Any, bool]:
    """A session without fallback to the CPU, or else one that has recorded what each provider does, and which it is."""
    if provider.name == CPU.name:
        return start({}), False
    try:
        return start({"session.disable_cpu_ep_fallback": "1"}), False
    except Exception as error:
        if "fallback to CPU EP has been explicitly disabled" not in str(error):
            raise
    return start({"session.record_ep_graph_assignment_info": "1"}), True


def _elsewhere(session: Any, provider: Provider) -> list[str]:
    """The operators that do real work on another provider."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise MissingDependency("this onnxruntime does not say what runs where; run: pip install 'onnxruntime>=1.24'")
    parts = [part for part in session.get_provider_graph_assignment_info() if part.ep_name != provider.name]
    return sorted({node.op_type for part in parts for node in part.get_nodes()} - SHAPE_OPERATORS)
