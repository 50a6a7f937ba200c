from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from export_networks import NETWORKS, distances
from small_exports import images, job_for, tiny

from chase.artifact import Artifact
from chase.errors import CheckpointError, ExportError, MissingDependency
from chase.exporters.aoti import write_aoti
from chase.files import sha256
from chase.runtimes import open_runtime
from chase.runtimes.aoti import built_here

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The tiny network, compiled once: that takes 15 s of a processor, nearly all of it in g++."""
    path = tmp_path_factory.mktemp("aoti") / "net.aoti.pt2"
    before = dict(os.environ)
    facts = write_aoti(job_for(tiny()), path)
    assert dict(os.environ) == before
    return Artifact(path=path, format="aoti", input_shape=(3, 8, 8), sha256=sha256(path), **facts)


@needs_compiler
def test_a_package_answers_as_its_network_at_every_batch_size(package: Artifact) -> None:
    with open_runtime(package) as runtime:
        for count in (1, 2, 3):
            torch.testing.assert_close(runtime.run(images(count)), tiny().eval()(images(count)))
        assert (runtime.name, runtime.provider) == ("aoti", "cpu")


@needs_compiler
def test_a_package_is_bound_to_this_machine_and_leaves_nothing_behind(package: Artifact) -> None:
    assert package.built_for == built_here(torch.device("cpu"))
    assert package.built_for["torch"] == torch.__version__
    assert [each.name for each in package.path.parent.iterdir()] == ["net.aoti.pt2"]


@needs_compiler
def test_a_truncated_package_is_one_line(
    package: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.aoti.pt2"
    broken.write_bytes(package.path.read_bytes()[:100_000])
    monkeypatch.setenv("CHASE_TRUST_CODE", "1")

    with pytest.raises(CheckpointError, match="broken.aoti.pt2 is not a whole AOTInductor package") as caught:
        open_runtime(Artifact(path=broken, format="aoti", input_shape=(3, 8, 8)))
    assert len(str(caught.value).splitlines()) == 1
    assert capfd.readouterr().err == ""


def test_a_failed_compilation_is_one_line_and_the_environment_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor

    seen: dict[str, Any] = {}

    def fail(program: Any, *, package_path: str, inductor_configs: dict[str, Any]) -> None:
        seen.update(inductor_configs, folder=os.environ["TORCHINDUCTOR_CACHE_DIR"])
        raise RuntimeError("C++ compile error\n\nCommand: g++ and much more")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    monkeypatch.setattr("chase.exporters.aoti.find_compiler", lambda purpose: "g++")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")

    with pytest.raises(ExportError, match=r"AOTInductor cannot compile Sequential: C\+\+ compile error$"):
        write_aoti(job_for(tiny()), tmp_path / "net.aoti.pt2")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "mine"
    assert not Path(seen["folder"]).exists()
    assert seen["cpp.dynamic_threads"] is True


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")

    with pytest.raises(MissingDependency, match=r"AOTInductor needs the C\+\+ compiler no-such-compiler; install it"):
        write_aoti(job_for(tiny()), tmp_path / "net.aoti.pt2")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "tiny"])
def test_every_kind_of_network_answers_as_itself(name: str, tmp_path: Path) -> None:
    assert max(distances(name, write_aoti, tmp_path / "net.aoti.pt2", "aoti")) < 1e-5
