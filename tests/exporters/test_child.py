"""Answers from a fresh process: it knows nothing of this one, and however it ends, one line says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from small_exports import EXAMPLE, images, job_for, tiny
from torch import Tensor

from chase.artifact import Artifact
from chase.errors import ChaseError, MissingDependency, ParityError
from chase.exporters import answers
from chase.exporters.child import _error, main
from chase.exporters.torchscript import write_torchscript
from chase.runtimes import RUNTIMES
from chase.runtimes.torchscript import TorchScript

PLUGIN = """
import os, signal, sys
from chase.errors import MissingDependency

class Runtime:
    formats = ("torchscript",)

    def __init__(self, source, *, device, threads=None):
        if __name__ == "chase_absent":
            raise MissingDependency("no such backend here; run: pip install chase-backend")
        self.device = device

    def run(self, x):
        sys.stderr.write("about to do something bad\\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("child") / "model.ts"
    artifact = Artifact(
        path=path, format="torchscript", input_shape=(3, 8, 8), **write_torchscript(job_for(tiny()), path)
    )
    artifact.save()
    return artifact


def plugged_in(folder: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings a runtime of its own name, as an installed one would."""
    (folder / f"{module}.py").write_text(PLUGIN)
    described = folder / f"{module}-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(f"[chase.runtimes]\n{module} = {module}:Runtime\n")
    monkeypatch.syspath_prepend(str(folder))


class Liar(TorchScript):
    """A runtime that only this process knows."""

    formats: ClassVar[tuple[str, ...]] = ("torchscript",)

    def run(self, x: Tensor) -> Tensor:
        return super().run(x) + 1


def test_a_fresh_process_answers_and_knows_nothing_of_this_one(
    written: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RUNTIMES, "torchscript", Liar)
    batches = [images(2), images(3, seed=4)]
    expected = [tiny().eval()(x).detach() for x in batches]

    fresh = answers(written, batches)
    here = answers(written, batches, isolated=False)

    for x, there, lie in zip(expected, fresh, here, strict=True):
        torch.testing.assert_close(there, x)
        torch.testing.assert_close(lie, x + 1)
        assert there.dtype == torch.float32


def test_a_process_that_dies_is_a_failed_parity(
    written: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged_in(tmp_path, "chase_faulty", monkeypatch)

    with pytest.raises(ParityError) as caught:
        answers(written, [EXAMPLE], runtime="chase_faulty")
    expected = "the process that ran model.ts was killed by signal 9: about to do something bad"
    assert str(caught.value) == expected


def test_what_is_missing_there_is_missing_here(
    written: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged_in(tmp_path, "chase_absent", monkeypatch)

    with pytest.raises(MissingDependency, match="^no such backend here; run: pip install chase-backend$") as caught:
        answers(written, [EXAMPLE], runtime="chase_absent")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("code", "stderr", "kind", "message"),
    [
        (
            -6,
            "first\nterminate called\n",
            ParityError,
            "the process that ran model was killed by signal 6: terminate called",
        ),
        (-9, "", ParityError, "the process that ran model was killed by signal 9: it said nothing"),
        (1, "Traceback\nValueError: x\n", ParityError, "the process that ran model failed: ValueError: x"),
        (2, "model is truncated\n", ParityError, "the process that ran model failed: model is truncated"),
        (3, "model cannot run a batch of 2\n", ParityError, "model cannot run a batch of 2"),
        (4, "no openvino; run: pip install openvino\n", MissingDependency, "no openvino; run: pip install openvino"),
    ],
)
def test_how_a_process_ended_is_told_in_one_line(code: int, stderr: str, kind: type[ChaseError], message: str) -> None:
    found = _error("model", code, stderr)

    assert type(found) is kind
    assert str(found) == message


def test_the_process_answers_into_a_file(written: Artifact, tmp_path: Path) -> None:
    torch.save([images(2)], tmp_path / "in.pt")

    main([str(written.path), str(tmp_path / "in.pt"), str(tmp_path / "out.pt")])

    (found,) = torch.load(tmp_path / "out.pt", weights_only=True)
    torch.testing.assert_close(found, tiny().eval()(images(2)))


def test_the_process_says_in_one_line_what_it_cannot_do(
    written: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save([torch.zeros(2, 4, 8, 8)], tmp_path / "in.pt")
    paths = [str(tmp_path / "in.pt"), str(tmp_path / "out.pt")]
    cases: list[tuple[list[str], int, str]] = [
        ([str(written.path), *paths], 3, "model.ts cannot run a batch of 2 ("),
        ([str(tmp_path / "none.ts"), *paths], 2, "no such file: "),
        ([str(written.path), *paths, "--runtime", "torchscrip"], 2, "no runtime named 'torchscrip'"),
    ]
    for arguments, code, message in cases:
        with pytest.raises(SystemExit) as caught:
            main(arguments)

        (line,) = capsys.readouterr().err.splitlines()
        assert (caught.value.code, line.startswith(message)) == (code, True)
    assert not (tmp_path / "out.pt").exists()


def test_an_answer_that_is_not_float32_is_made_so(written: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    class Half(TorchScript):
        def run(self, x: Tensor) -> Any:
            return super().run(x).half()

    monkeypatch.setitem(RUNTIMES, "torchscript", Half)

    assert answers(written, [EXAMPLE], isolated=False)[0].dtype == torch.float32
