"""A GPU where there is none: its tensors live in the CPU's memory, but do not mix with those of the CPU, and whatever
makes the host wait for them is noted.

Everything is computed for real, so that events, compaction and checkpoints run as on a GPU. What it cannot show: the
backward pass (autograd's engine wants a driver), streams, kernels of their own, rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
SYNCHRONOUS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
waits: list[str] = []
"""The operators that made the host wait, since it was last cleared."""


class OnGpu(Tensor):
    """A tensor of the GPU; `inner` is where its numbers are."""

    inner: Tensor  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        made: OnGpu = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=GPU
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _perform(func, args, kwargs or {})

    def tolist(self) -> Any:
        """Torch has none for subclasses."""
        return self.to(CPU).tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copied: Tensor = self.detach().clone()
            if isinstance(self, torch.nn.Parameter):
                copied = torch.nn.Parameter(copied, self.requires_grad)
            memo[id(self)] = copied
        return memo[id(self)]


class _Emulation(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _perform(func, args, kwargs or {})


def _perform(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on the CPU, with results where the GPU's would be."""
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    ours = [each for each in tensors if isinstance(each, OnGpu)]
    there = bool(ours) if kwargs.get("device") is None else torch.device(kwargs["device"]).type == "cuda"
    _note(func, args, kwargs, tensors, ours, there)
    arguments, named = tree_map(_inner, (args, kwargs))
    if named.get("device") is not None:
        named["device"] = CPU
    with _disable_current_modes():
        out = func(*arguments, **named)
    same = {id(_inner(each)): each for each in tensors}  # what works in place returns what it was given
    return tree_map(lambda each: _placed(each, same, there), out)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, OnGpu) else value


def _placed(value: Any, same: dict[int, Tensor], there: bool) -> Any:
    if not isinstance(value, Tensor):
        return value
    return same.get(id(value), OnGpu(value) if there else value)


def _note(func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor], ours: list[OnGpu], there: bool) -> None:
    """Refuse what a GPU refuses, and note what makes the host wait for it."""
    name = func.overloadpacket.__name__
    mixed = any(each.ndim for each in tensors if not isinstance(each, OnGpu)) and bool(ours)
    if name in INDEXING and ours:
        indices = [each for each in args[1] if each is not None]
        if any(each.dtype == torch.bool or not isinstance(each, OnGpu) for each in indices):
            waits.append(name)
    elif name in ("_to_copy", "copy_"):
        across = bool(ours) != there or mixed
        if across and not (there and kwargs.get("non_blocking")):
            waits.append(name)
    elif mixed:
        raise RuntimeError(f"{func} on {[(list(each.shape), str(each.device)) for each in tensors]}")
    elif ours and SYNCHRONOUS & set(func.tags):
        waits.append(name)


@contextlib.contextmanager
def emulated() -> Iterator[None]:
    """Until the block ends, `cuda:0` is this GPU."""
    replaced = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    cudnn, torch.backends.cudnn.enabled = torch.backends.cudnn.enabled, False
    try:
        # The fake mode handles nothing; while it is on, torch does not look for a driver.
        with FakeTensorMode(allow_non_fake_inputs=True), _Emulation():  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.backends.cudnn.enabled = cudnn
        torch.__future__.set_overwrite_module_params_on_conversion(replaced)


@contextlib.contextmanager
def on_the_host() -> Iterator[None]:
    """Within `emulated`, a block that has nothing to do with the GPU, such as reading a file."""
    with _disable_current_modes():
        yield


def fetched(value: Any) -> Any:
    """A nested value with all tensors on the CPU."""
    return tree_map(lambda each: each.inner.detach() if isinstance(each, OnGpu) else each, value)
