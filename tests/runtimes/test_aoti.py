"""What is loaded, and what is not: a package is native code. Real packages are in tests/exporters/test_aoti.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_artifacts import artifact, images, tiny

from chase.artifact import Artifact
from chase.errors import CheckpointError, MissingDependency
from chase.files import sha256
from chase.runtimes import open_runtime
from chase.runtimes.aoti import built_here

CPU = torch.device("cpu")
HERE = built_here(CPU)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """A loader that notes what it is asked for, and gives the tiny network."""
    import torch._inductor

    calls: list[tuple[str, int]] = []

    def load(path: str, device_index: int) -> Any:
        calls.append((path, device_index))
        return tiny()

    monkeypatch.setattr(torch._inductor, "aoti_load_package", load)
    monkeypatch.delenv("CHASE_TRUST_CODE", raising=False)
    return calls


def package(folder: Path, **facts: Any) -> Artifact:
    path = folder / "net.aoti.pt2"
    path.write_bytes(b"native code")
    return artifact(path, "aoti", **({"sha256": sha256(path), "built_for": HERE} | facts))


def test_the_very_file_of_its_sidecar_is_loaded(loaded: list[tuple[str, int]], tmp_path: Path) -> None:
    source = package(tmp_path)

    with open_runtime(source) as runtime:
        assert torch.equal(runtime.run(images(3)), tiny()(images(3)))

    assert loaded == [(str(source.path), -1)]


@pytest.mark.parametrize("content", [b"native code!", b"native"])
def test_another_file_is_not_loaded_unless_its_code_is_trusted(
    loaded: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    source = package(tmp_path)
    source.path.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"is not the file that its sidecar describes.*--trust-code"):
        open_runtime(source)
    assert not loaded

    monkeypatch.setenv("CHASE_TRUST_CODE", "1")
    open_runtime(source)
    assert len(loaded) == 1


def test_a_file_of_which_nothing_is_known_is_not_loaded(loaded: list[tuple[str, int]], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="to load it runs code out of it"):
        open_runtime(package(tmp_path, sha256=None))
    assert not loaded


@pytest.mark.parametrize(
    ("fact", "value", "message"),
    [
        ("device", "cuda", "was built for device cuda, and here it is cpu; export again here"),
        ("torch", "2.9.0", r"was built for torch 2.9.0, and here it is 2\."),
        ("platform", "Linux sparc64", "was built for platform Linux sparc64, and here"),
        ("instructions", "AVX9000", "was built for instructions AVX9000, and here"),
    ],
)
def test_a_package_for_another_machine_is_not_loaded(
    loaded: list[tuple[str, int]], tmp_path: Path, fact: str, value: str, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_runtime(package(tmp_path, built_for=HERE | {fact: value}))
    assert not loaded


@pytest.mark.parametrize(
    ("built", "here", "fits"),
    [("AVX2", "AVX512", True), ("DEFAULT", "AVX2", True), ("AVX512", "AVX2", False), ("SVE256", "AVX512", False)],
)
def test_a_processor_runs_the_code_for_lesser_ones(
    loaded: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: str, here: str, fits: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: here)
    source = package(tmp_path, built_for=HERE | {"instructions": built})

    if fits:
        open_runtime(source)
    else:
        with pytest.raises(CheckpointError, match=f"instructions {built}"):
            open_runtime(source)
    assert len(loaded) == fits


def test_a_package_for_a_gpu_is_bound_to_its_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))

    found = built_here(torch.device("cuda", 0))
    assert (found["device"], found["compute_capability"]) == ("cuda", "9.0")
    assert "instructions" not in found


def test_a_foreign_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="net.aoti.pt2 is not a whole AOTInductor package") as caught:
        open_runtime(package(tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_torch_without_it_says_what_to_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch._inductor", None)

    with pytest.raises(MissingDependency, match="has no AOTInductor; use the format torch-export"):
        open_runtime(package(tmp_path))
