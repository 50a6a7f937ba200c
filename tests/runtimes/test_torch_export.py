"""Programs of torch.export, and archives that were tampered with: nothing in them is ever executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_artifacts import SHAPE, artifact, images
from small_exports import job_for
from torch import Tensor, nn

from chase.artifact import Artifact
from chase.errors import CheckpointError
from chase.exporters.torch_export import write_torch_export
from chase.runtimes import open_runtime

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
Edit = Callable[[Any], object]


class Net(nn.Module):
    """With a constant, sizes that depend on the batch, and a block without gradients."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(48, 5)
        self.scale = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.fc(x.reshape(x.shape[0], 48))
            z: Tensor = y * self.scale + torch.ones(2 * x.shape[0], 5).mean()
        return z


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    made = artifact(tmp_path_factory.mktemp("program") / "net.pt2", "torch-export")
    write_torch_export(job_for(Net(), images(1)), made.path)
    return made


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_program_answers_as_its_network(program: Artifact, batch_size: int) -> None:
    x = images(batch_size)

    with open_runtime(program) as runtime:
        assert torch.equal(runtime.run(x), Net()(x))
        assert (runtime.name, runtime.provider) == ("torch-export", "cpu")


def test_a_truncated_and_a_foreign_file_are_one_line(program: Artifact, tmp_path: Path) -> None:
    other = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, other)
    for content in (program.path.read_bytes()[:3000], b"not a program", other.getvalue()):
        broken = artifact(tmp_path / "broken.pt2", "torch-export")
        broken.path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"broken.pt2 (is not a whole program|holds the member)") as caught:
            open_runtime(broken)
        assert len(str(caught.value).splitlines()) == 1


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def tampered(program: Artifact, folder: Path, changes: dict[str, Callable[[bytes], bytes]]) -> Artifact:
    """The program with some members changed or added."""
    made = artifact(folder / "evil.pt2", "torch-export")
    with zipfile.ZipFile(program.path) as old, zipfile.ZipFile(made.path, "w") as new:
        root = old.namelist()[0].split("/")[0]
        members = {name.partition("/")[2]: old.read(name) for name in old.namelist()}
        for name in members | changes:
            content = members.get(name, b"")
            new.writestr(f"{root}/{name}", changes[name](content) if name in changes else content)
    return made


def edited(edit: Edit) -> Callable[[bytes], bytes]:
    """A change of a JSON document in place."""

    def change(content: bytes) -> bytes:
        document = json.loads(content)
        edit(document)
        return json.dumps(document).encode()

    return change


def nodes(document: Any) -> Any:
    return document["graph_module"]["graph"]["nodes"]


def signature(document: Any) -> Any:
    return document["graph_module"]["module_call_graph"][0]["signature"]


def size(document: Any) -> Any:
    return document["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0]["as_expr"]


def spec(type: str, context: str) -> str:
    return json.dumps([1, {"type": type, "context": context, "children_spec": []}])


@pytest.mark.parametrize(
    ("target"),
    [
        "torch.os.mkdir", "torch.load", "torch.hub.load", "torch.ops.aten.from_file.default", "torch.ops.load_library",
        "torch.ops.aten.__class__.mro", "torch.ops.aten.add.Tensor.__call__", "_operator.methodcaller", "os.mkdir",
        "_operator.attrgetter", "math.__loader__.x", "#torch:evil", "torch.ops.higher_order.run_with_rng_state", "",
        "torch.ops.aten.save.default", "torch.ops.mylib.op.default",
    ],
)  # fmt: skip
def test_only_operators_on_tensors_and_sizes_are_looked_up(program: Artifact, tmp_path: Path, target: str) -> None:
    change = edited(lambda document: nodes(document)[0].update(target=target))

    with pytest.raises(CheckpointError, match="evil.pt2 holds target .*: a program .* may hold tensors and operators"):
        open_runtime(tampered(program, tmp_path, {MODEL: change}))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('FOLDER')", "Symbol('a').func", "().__class__", "lambda: 1", "[1 for _ in (1,)]",
        "eval('1')", "lambdify('x', 'FOLDER')", "Symbol('a b')", "s77 if s77 else 1", "open", "s77\n+s78; s79", "s" * 9,
        "Integer(1)(2)", "(" * 300,
    ],
)  # fmt: skip
def test_sizes_are_arithmetic(program: Artifact, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "made"
    expression = text.replace("FOLDER", str(folder))
    change = edited(lambda document: size(document).update(expr_str=expression))

    with pytest.raises(CheckpointError, match="evil.pt2 holds expr_str"):
        open_runtime(tampered(program, tmp_path, {MODEL: change}))
    assert not folder.exists()


@pytest.mark.parametrize(
    ("member", "edit", "what"),
    [
        (MODEL, lambda d: d["guards_code"].append("__import__('os')"), "guards_code"),
        (MODEL, lambda d: signature(d).update(in_spec=spec("collections.defaultdict", "{}")), "in_spec"),
        (MODEL, lambda d: signature(d).update(out_spec=spec("builtins.dict", '{"__enum__": 1}')), "out_spec"),
        (MODEL, lambda d: nodes(d)[0]["metadata"].update(custom="{}"), "metadata"),
        (MODEL, lambda d: nodes(d)[0]["inputs"][0].update(arg={"as_operator": "torch.os.mkdir"}), "as_operator"),
        (MODEL, lambda d: nodes(d)[0]["inputs"][0].update(arg={"as_custom_obj": {"name": "x"}}), "as_custom_obj"),
        (WEIGHTS, lambda d: d["config"]["fc.weight"].update(use_pickle=True), "use_pickle"),
        (CONSTANTS, lambda d: next(iter(d["config"].values())).update(use_pickle=True), "use_pickle"),
    ],
)
def test_entries_that_name_code_are_refused(
    program: Artifact, tmp_path: Path, member: str, edit: Edit, what: str
) -> None:
    with pytest.raises(CheckpointError, match=f"evil.pt2 holds {what} "):
        open_runtime(tampered(program, tmp_path, {member: edited(edit)}))


@pytest.mark.parametrize(
    "member",
    [
        "data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/model.pt", "extra/notes.txt",
        "data/constants/opaque_obj_0", "data/constants/custom_obj_0",
        "data/aotinductor/model/model.so", "models/other.json",
    ],
)  # fmt: skip
def test_members_that_would_be_unpickled_or_run_are_refused(program: Artifact, tmp_path: Path, member: str) -> None:
    folder = tmp_path / "made"
    content = pickle.dumps(Evil(folder)) if "opaque" in member else pickled((Evil(folder),))

    with pytest.raises(CheckpointError, match=r"evil.pt2 holds (the member|example inputs)"):
        open_runtime(tampered(program, tmp_path, {member: lambda _: content}))
    assert not folder.exists()


def test_a_pickled_weight_is_not_unpickled(program: Artifact, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    changes = {
        WEIGHTS: edited(lambda document: document["config"]["fc.weight"].update(use_pickle=True)),
        "data/weights/weight_0": lambda _: pickled(Evil(folder)),
    }

    with pytest.raises(CheckpointError, match="use_pickle"):
        open_runtime(tampered(program, tmp_path, changes))
    assert not folder.exists()


def test_rewriting_alone_changes_nothing(program: Artifact, tmp_path: Path) -> None:
    with open_runtime(tampered(program, tmp_path, {})) as runtime:
        assert torch.equal(runtime.run(images(2)), Net()(images(2)))
    assert program.input_shape == SHAPE
