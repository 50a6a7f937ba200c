"""Several processes that train one network together, as `torchrun` starts them. In a single process nothing here does
anything."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from chase.errors import ChaseError

Value = TypeVar("Value")


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Belong, until the block ends, to the processes that torchrun has started, if it has: gloo between CPUs, NCCL
    between GPUs.

    Raises:
        ChaseError: if another process cannot be reached any more.
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    store, number, count = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    # After a restart the store still has the addresses of processes that are gone.
    store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count)
    if rank():
        logging.getLogger("chase").setLevel(logging.ERROR)  # what is to be said, process 0 says
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistBackendError) or "gloo" in str(error):
            raise ChaseError("another process of this training has gone; see what it said, and resume") from error
        raise
    finally:
        dist.destroy_process_group()


def processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0. The process 0 writes and speaks for all."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """The number of this process among those on its machine, which is also that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if dist.is_initialized() else 0


def restarted() -> bool:
    """Whether torchrun has started the processes again after one of them failed."""
    return dist.is_initialized() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """Let one process of each machine do the block first, so that the others find what it has downloaded."""
    if local_rank():
        wait()
    yield
    if not local_rank():
        wait()


def wait() -> None:
    """Return when all processes have come here."""
    total(torch.zeros(1))  # torch's own barrier would take the GPU, which is not chosen yet


def total(tensor: Tensor) -> Tensor:
    """The sum over all processes."""
    if processes() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def mean(tensor: Tensor) -> Tensor:
    """The mean over all processes."""
    return total(tensor) / processes() if processes() > 1 else tensor


def any_of(*wishes: bool) -> list[bool]:
    """Which of the wishes at least one process has."""
    if processes() == 1:
        return list(wishes)
    return [count > 0 for count in total(torch.tensor([*map(int, wishes)])).tolist()]


def gathered(value: Value) -> list[Value]:
    """The value that each process has, by rank."""
    if processes() == 1:
        return [value]
    values: list[Value] = [value] * processes()
    dist.all_gather_object(values, value)
    return values


def from_first(value: Value) -> Value:
    """The value that process 0 has."""
    return gathered(value)[0]


def copy_from_first_(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of process 0."""
    for tensor in tensors if processes() > 1 else ():
        dist.broadcast(tensor, 0)


def check_same(what: str, digest: str) -> None:
    """Stop all processes if their digests differ.

    Raises:
        ChaseError: naming the first digest and the first other one.
    """
    digests = gathered(digest)
    for other, theirs in enumerate(digests):
        if theirs != digests[0]:
            raise ChaseError(
                f"{what} differ between processes: {digests[0]} on rank 0, {theirs} on rank {other}; "
                "resume from the last checkpoint, and look for memory faults or unlike versions if it happens again"
            )


def averaging(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with its gradients averaged over all processes in each backward pass."""
    if processes() == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
