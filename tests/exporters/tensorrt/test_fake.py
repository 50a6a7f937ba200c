"""The fake TensorRT is as strict as true bindings: those of TensorRT for RTX, which can be asked here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorrt_rtx
from fake_tensorrt import VERSIONS, Argument, Signature
from scripted_tensorrt import Script, World

Action = Callable[[Any, Any], Any]


def fake(version: str) -> Any:
    return World(version, Script()).trt


def module(name: str) -> Any:
    return tensorrt_rtx if name == "rtx" else fake(name)


def logger_of(trt: Any) -> Any:
    class Quiet(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            pass

    return Quiet()


@pytest.fixture(params=[*VERSIONS, "rtx"])
def objects(request: pytest.FixtureRequest) -> Any:
    """A module and a builder of it with its configuration, which must stay alive together."""
    trt = module(request.param)
    builder = trt.Builder(logger_of(trt))
    return trt, builder, builder.create_builder_config()


REFUSED: dict[str, tuple[type[Exception], Action]] = {
    "a wrong keyword": (TypeError, lambda trt, config: config.clear_flag(flags=trt.BuilderFlag.TF32)),
    "an argument too many": (TypeError, lambda trt, config: config.clear_flag(trt.BuilderFlag.TF32, True)),
    "an argument too few": (TypeError, lambda trt, config: config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)),
    "an argument twice": (
        TypeError,
        lambda trt, config: config.clear_flag(trt.BuilderFlag.TF32, flag=trt.BuilderFlag.TF32),
    ),
    "a number for a flag": (TypeError, lambda trt, config: config.clear_flag(6)),
    "a flag of another enum": (TypeError, lambda trt, config: config.set_flag(trt.MemoryPoolType.WORKSPACE)),
    "text for a number": (
        TypeError,
        lambda trt, config: config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, "1"),
    ),
    "a value of another type": (TypeError, lambda trt, config: setattr(config, "profiling_verbosity", 2)),
    "a method that is not there": (AttributeError, lambda trt, config: config.set_flags(trt.BuilderFlag.TF32)),
    "an attribute that is not there": (AttributeError, lambda trt, config: config.max_workspace_size),
    "setting what is not there": (AttributeError, lambda trt, config: setattr(config, "max_workspace_size", 1)),
    "a class that nobody constructs": (TypeError, lambda trt, config: trt.INetworkDefinition()),
    "a name that the module lacks": (AttributeError, lambda trt, config: trt.EngineBuilder),
    "a member that the enum lacks": (AttributeError, lambda trt, config: trt.BuilderFlag.FP17),
    "arithmetic on a flag": (TypeError, lambda trt, config: 1 << trt.BuilderFlag.TF32),
    "a builder without a logger": (TypeError, lambda trt, config: trt.Builder()),
}
TAKEN: dict[str, Action] = {
    "a keyword": lambda trt, config: config.clear_flag(flag=trt.BuilderFlag.TF32),
    "keywords in any order": lambda trt, config: config.set_memory_pool_limit(
        pool_size=1 << 20, pool=trt.MemoryPoolType.WORKSPACE
    ),
    "a member for an attribute": lambda trt, config: setattr(
        config, "profiling_verbosity", trt.ProfilingVerbosity.DETAILED
    ),
    "a shift by the number of a flag": lambda trt, config: 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED),
    "the members of an enum": lambda trt, config: trt.BuilderFlag.__members__["TF32"],
}


@pytest.mark.parametrize("case", REFUSED)
def test_both_refuse(objects: Any, case: str) -> None:
    trt, _, config = objects
    error, action = REFUSED[case]

    with pytest.raises(error):
        action(trt, config)


@pytest.mark.parametrize("case", TAKEN)
def test_both_take(objects: Any, case: str) -> None:
    trt, _, config = objects

    TAKEN[case](trt, config)


def test_both_take_tuples_for_shapes(objects: Any) -> None:
    profile = objects[1].create_optimization_profile()

    profile.set_shape("input", (1, 3), (2, 3), (4, 3))
    with pytest.raises(TypeError):
        profile.set_shape("input", minimum=(1, 3), opt=(2, 3), max=(4, 3))


def test_a_flag_that_version_11_removed_is_there_in_10_only() -> None:
    assert int(fake("10.16").BuilderFlag.FP16) == 0
    with pytest.raises(AttributeError, match="FP16"):
        _ = fake("11.4").BuilderFlag.FP16


def test_an_attribute_that_version_11_removed_is_there_in_10_only() -> None:
    assert hasattr(fake("10.16").IBuilderConfig, "int8_calibrator")
    assert not hasattr(fake("11.4").IBuilderConfig, "int8_calibrator")


def test_the_numbers_of_flags_are_those_of_the_version() -> None:
    assert [int(fake(version).NetworkDefinitionCreationFlag.STRONGLY_TYPED) for version in VERSIONS] == [1, 0]
    assert [int(fake(version).BuilderFlag.VERSION_COMPATIBLE) for version in VERSIONS] == [13, 12]


def test_what_has_no_behaviour_says_so() -> None:
    trt = fake("11.4")
    builder = trt.Builder(logger_of(trt))

    with pytest.raises(NotImplementedError, match=r"no behaviour for Builder\.reset"):
        builder.reset()


def test_a_logger_that_was_not_initialised_is_refused() -> None:
    trt = fake("11.4")

    forgetful = type("Forgetful", (trt.ILogger,), {"__init__": lambda self: None})

    with pytest.raises(TypeError, match="incompatible function arguments"):
        trt.Builder(forgetful())


def test_a_signature_is_read_with_its_defaults_and_nested_types() -> None:
    text = "f(self: A, model: typing_extensions.Buffer, path: tuple[int, list[str]] = None) -> dict[int, str]"

    signature = Signature.parse(text)

    assert signature.arguments == (
        Argument("model", "typing_extensions.Buffer", None),
        Argument("path", "tuple[int, list[str]]", "None"),
    )
    assert signature.returns == "dict[int, str]"


def test_memory_is_a_buffer_and_nothing_else() -> None:
    memory = World("11.4", Script()).api.memory(b"plan")

    assert (bytes(memory), memory.nbytes) == (b"plan", 4)
    with pytest.raises(AttributeError):
        memory.hex()
