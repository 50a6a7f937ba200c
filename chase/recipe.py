"""Recipe: one experiment as data. YAML on disk, frozen dataclasses in memory, checked when it is made."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from chase.errors import RecipeError, UnknownName, reason
from chase.registry import did_you_mean
from chase.settings import DataSettings, ModelSettings, OptimizerSettings, ScheduleSettings, TrainingSettings
from chase.sparse.method import Method
from chase.sparse.methods import METHODS

if TYPE_CHECKING:
    from pydantic import ValidationError

Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the outcome of a training."""

    name: str = "run"
    about: str = ""
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    method: Method = METHODS["chase"]
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    training: TrainingSettings = TrainingSettings()

    def __post_init__(self) -> None:
        if not self.name or self.name != Path(self.name).name or self.name in ("latest", ".", ".."):
            raise RecipeError(f"name must be usable as a folder's name, not {self.name!r}")

    def to_dict(self) -> dict[str, Any]:
        """The recipe with every setting spelled out, as plain data."""
        blocks: dict[str, Any] = _plain(dataclasses.asdict(self))
        for block in ("model", "data"):
            blocks[block].update(blocks[block].pop("settings"))
        return blocks

    def to_yaml(self) -> str:
        """`to_dict` as YAML."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_dict(cls, blocks: Mapping[str, Any], *, source: str = "recipe") -> Recipe:
        """A recipe from plain data; what is not given has its default.

        Raises:
            RecipeError: for an unknown key or a value of the wrong kind, naming `source` and the key.
        """
        known = [each.name for each in dataclasses.fields(cls)]
        if not isinstance(blocks, Mapping):
            raise RecipeError(f"{source}: a recipe is a mapping of {', '.join(known)}")
        values: dict[str, Any] = {}
        for key, value in blocks.items():
            if key not in known:
                raise RecipeError(f"{source}: {key}: no such setting; {did_you_mean(str(key), known)}")
            values[key] = str(value) if key in ("name", "about") else _block(source, key, value)
        return cls(**values)


def _block(source: str, key: str, value: Any) -> Any:
    if isinstance(value, str) and key in ("model", "data", "method"):
        value = {"name": value}
    if not isinstance(value, Mapping):
        raise RecipeError(f"{source}: {key} must be a mapping of settings, not {value!r}")
    if key == "method":
        return coerce(METHODS[str(value.get("name", "chase"))], value, f"{source}: {key}")
    default = {
        "model": ModelSettings(),
        "data": DataSettings(),
        "optimizer": OptimizerSettings(),
        "schedule": ScheduleSettings(),
        "training": TrainingSettings(),
    }[key]
    return coerce(default, value, f"{source}: {key}")


def coerce(default: Settings, values: Mapping[str, Any], where: str) -> Settings:
    """`default` with some fields replaced, each value brought to its field's type.

    A dataclass with a `settings` field takes any key it does not know into that.
    """
    hints = typing.get_type_hints(type(default))
    changes: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints or key == "settings":
            if "settings" not in hints:
                raise RecipeError(f"{where}.{key}: no such setting; {did_you_mean(str(key), hints)}")
            if key == "settings" and not isinstance(value, Mapping):
                raise RecipeError(f"{where}.settings must be a mapping, not {value!r}")
            extra.update(value if key == "settings" else {key: value})
            continue
        if value is False and isinstance(getattr(default, key), str):
            value = "off"  # which is how YAML reads the word
        changes[key] = typed(value, hints[key], f"{where}.{key}")
    if extra:
        changes["settings"] = extra
    return dataclasses.replace(default, **changes)  # type: ignore[type-var]


def typed(value: Any, hint: Any, where: str) -> Any:
    """`value` brought to the type that `hint` says.

    Raises:
        RecipeError: if that cannot be, naming `where` it stands.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        raise RecipeError(f"{where}: {_misfit(error, value)}") from None


def _misfit(error: ValidationError, value: Any) -> str:
    """What a value should have been, by all types that a setting may have, in the words of YAML."""
    found = error.errors()
    said = [each["msg"].lower().replace("tuple", "list").replace("dictionary", "mapping") for each in found]
    rest = [each.removeprefix("input should be ") for each in said[1:]]
    single = isinstance(value, int | float | str) and not isinstance(value, bool)
    hint = f"; write a list: [{value!r}, …]" if single and "tuple_type" in {each["type"] for each in found} else ""
    return f"{' or '.join([said[0], *rest])}, not {value!r}{hint}"


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def shipped() -> list[str]:
    """The names of the recipes that come with Chase."""
    files = resources.files("chase.recipes").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def read(name: str) -> dict[str, Any]:
    """The blocks of a shipped recipe by name, or of a YAML file by path.

    Raises:
        RecipeError: if there is no such recipe or it is not valid YAML.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        if not path.is_file():
            raise RecipeError(f"no such recipe file: {name}; `chase recipes` lists the shipped ones")
        text = path.read_text(errors="replace")
    elif name in shipped():
        text = resources.files("chase.recipes").joinpath(f"{name}.yaml").read_text()
    else:
        raise UnknownName(f"no recipe named {name!r}; {did_you_mean(name, shipped())}")
    blocks = _yaml(text, name)
    if not isinstance(blocks, dict):
        raise RecipeError(f"{name} is not a recipe: it must be a mapping of blocks")
    return blocks


def _yaml(text: str, source: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{source} is not valid YAML: {reason(error)}") from None


def override(blocks: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """`blocks` with `key.path=value` assignments on top; values are read as YAML.

    Raises:
        RecipeError: for an assignment without "=" or through something that is not a mapping.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise RecipeError(f"{assignment!r} is not an assignment; write -o key=value, as in -o training.epochs=5")
        blocks = _assign(blocks, path.split("."), _yaml(text, path), path)
    return blocks


def _assign(blocks: Any, keys: list[str], value: Any, path: str) -> dict[str, Any]:
    blocks = {"name": blocks} if isinstance(blocks, str) else blocks or {}
    if not isinstance(blocks, dict):
        raise RecipeError(f"{path}: {keys[0]!r} lies inside a value that has no settings")
    inner = value if len(keys) == 1 else _assign(blocks.get(keys[0]), keys[1:], value, path)
    return {**blocks, keys[0]: inner}
