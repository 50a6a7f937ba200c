from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from export_networks import NETWORKS, distances
from small_exports import images, job_for, tiny

from chase.artifact import Artifact
from chase.errors import CheckpointError, MissingDependency, RecipeError
from chase.exporters.executorch import write_executorch
from chase.runtimes import open_runtime


@pytest.mark.parametrize("sizes", [(), (1, 8), (8, 1, 1), (1, 9, 8), (0, 1, 1)])
def test_batch_sizes_are_the_smallest_the_usual_and_the_largest(sizes: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="are not MIN:OPT:MAX in rising order, as in 1:8:32"):
        write_executorch(job_for(tiny()), tmp_path / "net.pte", batch_sizes=sizes)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)

    with pytest.raises(MissingDependency, match=r"exporting to ExecuTorch needs .*'chase-sparse\[executorch\]'"):
        write_executorch(job_for(tiny()), tmp_path / "net.pte")


@pytest.fixture(scope="module")
def executorch() -> Any:
    from chase.runtimes.executorch import executorch

    try:
        with executorch(purpose="this test") as package:
            return package
    except MissingDependency as missing:
        pytest.skip(str(missing))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_answers_as_its_network(executorch: Any, name: str, tmp_path: Path) -> None:
    assert max(distances(name, write_executorch, tmp_path / "net.pte", "executorch", batch_sizes=(1, 1, 3))) < 1e-5


@pytest.mark.slow
def test_a_program_is_planned_for_its_batch_sizes(
    executorch: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.pte"
    for sizes, fits, too_many in (((1, 2, 4), 4, 5), ((2, 2, 2), 2, 1)):
        facts = write_executorch(job_for(tiny()), path, batch_sizes=sizes)
        assert facts["batch_sizes"] == sizes
        with open_runtime(Artifact(path=path, format="executorch", input_shape=(3, 8, 8), **facts)) as runtime:
            x = images(fits).to(memory_format=torch.channels_last)
            torch.testing.assert_close(runtime.run(x), tiny().eval()(x))
            with pytest.raises(RecipeError, match=f"takes batches of {sizes[0]} to {sizes[-1]}, not {too_many}"):
                runtime.run(images(too_many))
            assert runtime.provider.startswith("XNNPACK")
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"not a program", None])
def test_a_broken_program_is_one_line(
    executorch: Any, tmp_path: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.pte"
    if content is None:
        write_executorch(job_for(tiny()), path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"net.pte is not a whole ExecuTorch program \(.+\); export again"):
        open_runtime(Artifact(path=path, format="executorch", input_shape=(3, 8, 8)))
    assert capfd.readouterr().err == ""
