"""A stand-in for the module `tensorrt` with the names, arguments and enum members of a true version, and no others.

They are read from `api/tensorrt-*.json`. What the objects do is layered on top: a class that is constructed, or that
another one hands out, has a behaviour, whose methods take their arguments by the true names. Whatever has none raises
NotImplementedError.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

VERSIONS = ("10.16", "11.4")

_PLAIN: dict[str, Any] = {
    "str": str,
    "bool": bool,
    "int": int,
    "float": (int, float),
    "list": list,
    "tuple": tuple,
    "slice": slice,
    "object": object,
    "None": type(None),
    "Buffer": (bytes, bytearray, memoryview),
}


@dataclass(frozen=True)
class Argument:
    name: str
    type: str
    default: str | None

    @property
    def by_keyword(self) -> bool:
        return not (self.name.startswith("arg") and self.name[3:].isdigit())


@dataclass(frozen=True)
class Signature:
    """One overload, such as "parse(self: OnnxParser, model: typing_extensions.Buffer, path: str = None) -> bool"."""

    text: str
    arguments: tuple[Argument, ...]
    returns: str

    @classmethod
    def parse(cls, text: str) -> Signature:
        inside, returns = text[text.index("(") + 1 :].rsplit(") -> ", 1)
        return cls(text, tuple(_argument(each) for each in _split(inside)[1:]), returns)

    def bind(self, fits: Callable[[str, Any], bool], given: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """The arguments by name, or None where they are not as this overload wants them."""
        known = {each.name: each for each in self.arguments}
        if len(given) > len(known) or not all(name in known and known[name].by_keyword for name in named):
            return None
        bound = dict(zip(known, given, strict=False))
        if bound.keys() & named.keys():
            return None
        bound |= named
        if any(each.default is None and name not in bound for name, each in known.items()):
            return None
        return bound if all(fits(known[name].type, value) for name, value in bound.items()) else None


def _split(text: str) -> list[str]:
    """Parts between commas that are in no bracket."""
    parts, depth = [""], 0
    for each in text:
        depth += {"[": 1, "]": -1}.get(each, 0)
        if each == "," and not depth:
            parts.append("")
        else:
            parts[-1] += each
    return [part.strip() for part in parts]


def _argument(text: str) -> Argument:
    name, _, rest = text.partition(": ")
    type_, _, default = rest.partition(" = ")
    return Argument(name, type_, default or None)


class _Member(enum.Enum):
    """A member of an enum as pybind11 makes them: no integer, but with one inside."""

    def __int__(self) -> int:
        return int(self.value)

    __index__ = __int__


class Native:
    """An object of the fake: what its class does not know can be neither read nor written."""

    __slots__ = ("_behaviour",)
    _behaviour: Any

    def __init__(self, *given: Any, **named: Any) -> None:
        raise TypeError(f"{type(self).__name__}: No constructor defined!")


class Api:
    """One version: `module` is what to import; `behaviours` are by the names of the classes that users construct."""

    def __init__(self, version: str, behaviours: Mapping[str, Callable[..., Any]]) -> None:
        content = json.loads((Path(__file__).parent / "api" / f"tensorrt-{version}.json").read_text())
        self.behaviours = behaviours
        module: Any = ModuleType("tensorrt")
        module.__version__ = content["version"]
        self.module = module
        self.types: dict[str, Any] = {}
        for name, members in content["enums"].items():
            self.add(name, _enum(name, members))
        for name, description in content["classes"].items():
            self.add(name, self.make(name, description))

    def add(self, name: str, type_: Any) -> None:
        self.types[name] = type_
        setattr(self.module, name, type_)

    def wrap(self, name: str, behaviour: Any) -> Any:
        """An object that TensorRT hands out."""
        made = object.__new__(self.types[name])
        made._behaviour = behaviour
        return made

    def memory(self, content: bytes) -> Any:
        """An IHostMemory, which is the one class that others read as a buffer."""
        return self.types["IHostMemory"](content)

    def make(self, name: str, description: Mapping[str, Any]) -> Any:
        if name == "IHostMemory":
            return _memory(set(description["properties"]) | set(description["methods"]))
        space: dict[str, Any] = {"__slots__": ()}
        for method, overloads in description["methods"].items():
            space[method] = self.method(f"{name}.{method}", [Signature.parse(text) for text in overloads])
        for attribute, facts in description["properties"].items():
            space[attribute] = self.attribute(f"{name}.{attribute}", facts)
        if "init" in description:
            space["__init__"] = self.constructor(name, [Signature.parse(text) for text in description["init"]])
        for nested, members in description.get("nested", {}).items():
            self.types.setdefault(nested, _enum(nested, members))
            space |= {nested: self.types[nested], **self.types[nested].__members__}
        bases = tuple(self.types[base] for base in description.get("bases", ())) or (Native,)
        return type(name, bases, space)

    def method(self, name: str, overloads: list[Signature]) -> Callable[..., Any]:
        def call(instance: Any, *given: Any, **named: Any) -> Any:
            signature, arguments = self.bound(name, overloads, given, named)
            result = _hook(instance, name)(**arguments)
            assert result is None or self.fits(signature.returns, result), f"{name} cannot return {result!r}"
            return result

        return call

    def attribute(self, name: str, facts: Mapping[str, Any]) -> property:
        own, type_ = name.split(".")[1], facts.get("type", "object")

        def write(instance: Any, value: Any) -> None:
            if not self.fits(type_, value):
                raise TypeError(f"{name} is a {type_}, not {value!r}")
            setattr(instance._behaviour, own, value)

        return property(lambda instance: _hook(instance, name), write if facts["writable"] else None)

    def constructor(self, name: str, overloads: list[Signature]) -> Callable[..., None]:
        def init(instance: Any, *given: Any, **named: Any) -> None:
            arguments = self.bound(f"{name}.__init__", overloads, given, named)[1]
            instance._behaviour = self.behaviours[name](**arguments)

        return init

    def bound(self, name: str, overloads: list[Signature], given: Any, named: Any) -> tuple[Signature, dict[str, Any]]:
        for each in overloads:
            if (arguments := each.bind(self.fits, given, named)) is not None:
                return each, arguments
        supported = "; ".join(each.text for each in overloads)
        raise TypeError(f"{name}(): incompatible function arguments; supported: {supported}; got {given} {named}")

    def fits(self, type_: str, value: Any) -> bool:
        """Whether the true binding takes `value` where its signature says `type_`; of unknown types, whatever it is."""
        if "[" in type_:
            return isinstance(value, list | tuple)
        name = type_.replace("::", ".").rsplit(".", 1)[-1].removeprefix("IParserError") or "ParserError"
        if name == "SupportsInt":
            return hasattr(value, "__index__")
        if name == "Dims" and isinstance(value, list | tuple):
            return all(isinstance(each, int) for each in value)
        known = self.types.get(name) or _PLAIN.get(name, object)
        return isinstance(value, known) and (not isinstance(value, Native) or hasattr(value, "_behaviour"))


def _hook(instance: Any, name: str) -> Any:
    """What the behaviour has under the name of a method or attribute."""
    own = name.split(".")[1]
    if not hasattr(instance._behaviour, own):
        raise NotImplementedError(f"the fake has no behaviour for {name}, or it is pure virtual")
    return getattr(instance._behaviour, own)


def _enum(name: str, members: Mapping[str, int]) -> Any:
    made: Any = _Member
    return made(name, dict(members))


def _memory(names: set[str]) -> Any:
    class IHostMemory(bytes):
        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            if name.startswith("__") or name in names:
                return len(self) if name == "nbytes" else super().__getattribute__(name)
            raise AttributeError(f"IHostMemory has no {name}")

    return IHostMemory
