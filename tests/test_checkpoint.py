"""Checkpoints: round trips, and files that must not be trusted."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from chase.checkpoint import InputSpec, build_model, load_model, load_network, read, save
from chase.errors import CheckpointError, OutputError, UnknownName
from chase.models import build

SETTINGS = {"num_classes": 3, "in_channels": 1, "side": 4, "hidden": [6]}
MODEL = {"name": "mlp", "settings": SETTINGS}
INPUT = InputSpec(shape=(1, 4, 4), classes=("a", "b", "c"), mean=(0.5,), std=(0.25,))
FACTS = {
    "macs": {"theoretical": 1, "gpu_supported": 2, "dense": 3},
    "params": {"nonzero": 4, "stored": 5, "dense": 6},
    "sparsity": 0.5,
}


def written(path: Path, *, kind: str = "masked", **changes: Any) -> nn.Module:
    """A checkpoint in `path`, and the network in it."""
    model = build("mlp", **SETTINGS).eval()
    content: dict[str, Any] = {"model": MODEL, "input": INPUT, "widths": None, "facts": FACTS, "masks": None}
    save(path, kind=kind, network=model, **(content | changes))
    return model


@pytest.mark.parametrize("kind", ["masked", "dense", "slim"])
def test_a_network_comes_back_as_it_was(tmp_path: Path, kind: str) -> None:
    model = written(tmp_path / "a.pt", kind=kind)

    network = load_network(tmp_path / "a.pt", kinds=(kind,))

    x = torch.rand(2, 1, 4, 4)
    assert torch.equal(network.model(x), model(x))
    assert not network.model.training
    assert (network.kind, network.path, network.input) == (kind, tmp_path / "a.pt", INPUT)
    assert (network.input_shape, network.classes) == ((1, 4, 4), ("a", "b", "c"))
    assert (network.mean, network.std) == ((0.5,), (0.25,))
    assert network.facts == FACTS
    assert (network.macs, network.params) == (FACTS["macs"], FACTS["params"])
    assert network.content["format"] == "chase/1"


def test_a_slim_network_comes_back_in_its_slim_shapes(tmp_path: Path) -> None:
    slim = build("mlp", **SETTINGS | {"hidden": [4]}).eval()
    shapes = {"1.weight": [4, 16], "1.bias": [4], "3.weight": [3, 4]}
    widths = {"shapes": shapes, "attributes": {"1": {"out_features": 4}, "3": {"in_features": 4}}}
    written(tmp_path / "slim.pt", kind="slim", widths=widths, state_dict=slim.state_dict())

    loaded = load_model(tmp_path / "slim.pt")

    x = torch.rand(2, 1, 4, 4)
    assert torch.equal(loaded(x), slim(x))
    assert repr(loaded) == repr(slim)


def test_an_example_is_a_batch_of_zeros() -> None:
    assert torch.equal(INPUT.example(2), torch.zeros(2, 1, 4, 4))


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.target),)


def test_a_malicious_file_is_refused_and_does_nothing(tmp_path: Path) -> None:
    content = {"format": "chase/1", "kind": "masked", "facts": Bomb(tmp_path / "pwned")}
    torch.save(content, tmp_path / "bad.pt")

    with pytest.raises(CheckpointError, match=r"bad.pt cannot be read .* \(it holds objects that are not plain data\)"):
        read(tmp_path / "bad.pt")
    assert not (tmp_path / "pwned").exists()


def truncated(path: Path) -> None:
    written(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "no such file: .*a.pt; make it with `chase train`"),
    "folder": (lambda path: path.mkdir(), "a.pt is a folder; name the file in it"),
    "truncated": (truncated, r"a.pt cannot be read as a checkpoint \(truncated, or no checkpoint\); make it again"),
    "empty": (lambda path: path.write_bytes(b""), "a.pt cannot be read as a checkpoint"),
    "text": (lambda path: path.write_text("hello"), "a.pt cannot be read as a checkpoint"),
    "foreign": (
        lambda path: torch.save({"state_dict": {}}, path),
        r"a.pt is not a chase/1 checkpoint \(its format is None\)",
    ),
    "newer": (lambda path: torch.save({"format": "chase/2"}, path), r"\(its format is 'chase/2'\)"),
    "list": (lambda path: torch.save([1], path), r"\(its format is 'list'\)"),
    "module": (lambda path: torch.save(nn.ReLU(), path), "it holds objects that are not plain data"),
    "other kind": (lambda path: written(path, kind="slim"), "a.pt holds a slim network; this needs: masked, dense"),
    "incomplete": (
        lambda path: torch.save({"format": "chase/1", "kind": "masked", "facts": {}}, path),
        "a.pt is incomplete: it lacks model, input, widths, state_dict; make it again",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_used_is_one_clear_error(tmp_path: Path, name: str) -> None:
    make, message = FILES[name]
    make(tmp_path / "a.pt")

    with pytest.raises(CheckpointError, match=message) as caught:
        load_network(tmp_path / "a.pt", kinds=("masked", "dense"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state_dict": {}}, "does not fit the model 'mlp': Error"),
        ({"model": {"name": "mlp", "settings": SETTINGS | {"hidden": [9]}}}, "does not fit the model 'mlp': Error"),
        ({"widths": {"shapes": {"9.weight": [2]}, "attributes": {}}}, "the width plan names 9.weight"),
        ({"widths": {"shapes": {}, "attributes": {"9": {}}}}, "does not fit the model 'mlp'"),
        ({"widths": [1]}, "does not fit the model 'mlp'"),
    ],
)
def test_content_that_does_not_fit_its_model_is_one_clear_error(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    written(tmp_path / "a.pt", **changes)

    with pytest.raises(CheckpointError, match=message) as caught:
        load_network(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)


def test_a_model_that_is_not_known_here_is_named(tmp_path: Path) -> None:
    written(tmp_path / "a.pt", model={"name": "vgg91", "settings": {}})

    with pytest.raises(UnknownName, match="no model named 'vgg91'"):
        load_network(tmp_path / "a.pt")


def test_user_code_is_imported_only_when_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trusted_nets.py").write_text(
        "from pathlib import Path\nfrom torch import nn\nPath('imported').touch()\n"
        "def tiny(num_classes):\n    return nn.Linear(2, num_classes)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHASE_TRUST_CODE", raising=False)
    spec = {"name": "trusted_nets:tiny", "settings": {"num_classes": 3}}
    weights = nn.Linear(2, 3).state_dict()
    written(tmp_path / "a.pt", model=spec, state_dict=weights)

    with pytest.raises(CheckpointError, match=r"'trusted_nets:tiny' is code outside Chase; .* CHASE_TRUST_CODE=1"):
        load_network(tmp_path / "a.pt")
    assert not (tmp_path / "imported").exists()

    monkeypatch.setenv("CHASE_TRUST_CODE", "1")
    assert torch.equal(load_model(tmp_path / "a.pt").state_dict()["weight"], weights["weight"])


def test_torchvisions_models_need_no_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHASE_TRUST_CODE", raising=False)
    spec = {"name": "torchvision:resnet18", "settings": {"num_classes": 2}}

    assert build_model(spec, builder=lambda name, num_classes: nn.Linear(1, num_classes)).state_dict()


def test_a_path_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match="cannot write .*a.pt: .*; choose another output path"):
        written(tmp_path / "file" / "a.pt")


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    written(tmp_path / "a.pt")
    before = (tmp_path / "a.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))  # the write fails halfway, as it would

    try:
        with pytest.raises(OutputError, match="cannot write .*a.pt: File too large; choose"):
            written(tmp_path / "a.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert (tmp_path / "a.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
