from __future__ import annotations

import functools
import shutil
from typing import Any

import pytest
import torch
from small_artifacts import images, tiny
from torch import Tensor, nn

from chase.errors import MissingDependency, RecipeError
from chase.runtimes import open_runtime
from chase.runtimes.compiled import find_compiler


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """torch.compile, which follows the code as always and then runs the graph as it is; notes its arguments."""
    calls: list[dict[str, Any]] = []
    compile = torch.compile

    def noted(function: Any, **settings: Any) -> Any:
        calls.append(settings)
        return compile(function, backend="eager", **settings)

    monkeypatch.setattr(torch, "compile", noted)
    monkeypatch.setattr("chase.runtimes.compiled.find_compiler", lambda purpose: "g++")
    return calls


def test_every_shape_is_compiled_for_itself_however_many_there_are(without_compiler: list[dict[str, Any]]) -> None:
    sizes = [*range(1, 12), 1, 2]  # torch gives up after eight compilations of the same code

    with open_runtime(tiny().train(), runtime="compiled") as runtime:
        for size in sizes:
            assert torch.equal(runtime.run(images(size)), tiny()(images(size)))

    assert without_compiler == [{"fullgraph": True, "dynamic": False}] * 11
    assert (runtime.name, runtime.provider) == ("compiled", "cpu")


def test_code_that_cannot_be_compiled_as_a_whole_is_refused(without_compiler: list[dict[str, Any]]) -> None:
    class Looking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 and print("seen") is None else -x  # noqa: T201

    with (
        open_runtime(Looking(), runtime="compiled") as runtime,
        pytest.raises(RecipeError, match=r"compiled cannot run an input of \[1, 3, 4, 4\] float32: "),
    ):
        runtime.run(images(1).abs())


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O2")

    with pytest.raises(MissingDependency, match=r"needs the C\+\+ compiler no-such-compiler; install it .* or set CXX"):
        open_runtime(tiny(), runtime="compiled")


def test_the_compiler_is_the_one_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", functools.partial("{0}".format))

    monkeypatch.setenv("CXX", "clang++-19 -stdlib=libc++")
    assert find_compiler(purpose="this") == "clang++-19"


@pytest.mark.slow
def test_compiled_answers_as_its_network() -> None:
    with open_runtime(tiny(), runtime="compiled") as runtime:
        for size in (1, 3):
            torch.testing.assert_close(runtime.run(images(size)), tiny()(images(size)))
