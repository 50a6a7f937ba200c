"""AOTInductor: a network compiled to native code beforehand."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import torch

from chase.artifact import Artifact
from chase.errors import CheckpointError, MissingDependency, reason
from chase.runtimes.base import machine
from chase.runtimes.compiled import no_logging
from chase.runtimes.eager import TorchRuntime
from chase.trust import HINT, trusted

_ISAS = ("DEFAULT", "NO AVX", "AVX2", "AVX512")  # of x86; each runs code for those before it


class Aoti(TorchRuntime):
    """A package of AOTInductor, for the device that it was built for.

    Such a file *is* native code: to load it is to run it. So it must be the very file that its sidecar speaks of, or
    the user must have said that its code is trusted.

    Raises:
        CheckpointError: if the file is missing, truncated, changed, foreign, or was built for another device, kind of
            processor, or version of torch.
        MissingDependency: if this torch has no AOTInductor.
    """

    formats: ClassVar[tuple[str, ...]] = ("aoti",)

    def __init__(self, source: Artifact, *, device: torch.device, threads: int | None = None) -> None:
        load = loader()
        _check_trust(source)
        _check_built_for(source, built_here(device))
        try:
            with no_logging():
                module = load(str(source.path), device_index=device.index if device.type == "cuda" else -1)
        except Exception as error:  # of the archive's reader, the linker or the code itself
            name = source.path.name
            raise CheckpointError(
                f"{name} is not a whole AOTInductor package ({reason(error)}); export again"
            ) from error
        super().__init__(module, "aoti", device=device, threads=threads, artifact=source)

    @staticmethod
    def check() -> None:
        """Ask for AOTInductor.

        Raises:
            MissingDependency: if this torch has none.
        """
        loader()


def loader() -> Any:
    """torch's function that loads a package; it is in a private module.

    Raises:
        MissingDependency: if this torch has none.
    """
    try:
        return importlib.import_module("torch._inductor").aoti_load_package
    except (ImportError, AttributeError) as error:
        raise MissingDependency(f"torch {torch.__version__} has no AOTInductor; use the format torch-export") from error


def built_here(device: torch.device) -> dict[str, str]:
    """What a package that is built here and now for `device` is bound to."""
    facts = {"device": device.type, "torch": str(torch.__version__), "platform": machine()}
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return facts | {"compute_capability": f"{major}.{minor}"}
    return facts | {"instructions": torch.backends.cpu.get_cpu_capability()}


def _check_trust(source: Artifact) -> None:
    if trusted():
        return
    if source.path.is_file() and (source.sha256 is None or not source.is_whole()):
        raise CheckpointError(
            f"{source.path.name} is not the file that its sidecar describes, and to load it runs code out of it; "
            f"if you trust the file, {HINT}"
        )


def _check_built_for(source: Artifact, here: dict[str, str]) -> None:
    """Refuse what would crash or compute something else here."""
    built = {name: source.built_for.get(name, value) for name, value in here.items()}
    for name, value in here.items():
        if built[name] != value and not (name == "instructions" and _runs(built[name], value)):
            title = name.replace("_", " ")
            raise CheckpointError(
                f"{source.path.name} was built for {title} {built[name]}, and here it is {value}; export again here"
            )


def _runs(built: str, here: str) -> bool:
    return built in _ISAS and here in _ISAS and _ISAS.index(built) <= _ISAS.index(here)
