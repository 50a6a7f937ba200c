from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_artifacts import artifact, images, onnx_file, tiny

from chase.artifact import Artifact
from chase.errors import CheckpointError, RecipeError
from chase.runtimes import open_runtime
from chase.runtimes.openvino import OpenVino

openvino: Any = pytest.importorskip("openvino", reason="openvino is not installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("openvino")
    made = artifact(folder / "tiny.xml", "openvino", files=("tiny.bin",))
    network = openvino.Core().read_model(str(onnx_file(folder).path))
    openvino.save_model(network, str(made.path), compress_to_fp16=False)
    return made


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_model_answers_as_its_network(model: Artifact, batch_size: int) -> None:
    x = images(batch_size).to(memory_format=torch.channels_last)

    with open_runtime(model) as runtime:
        torch.testing.assert_close(runtime.run(x), tiny()(x))
        assert (runtime.name, runtime.provider) == ("openvino", "CPU f32")


def test_answers_stay_as_they_are(model: Artifact) -> None:
    with open_runtime(model) as runtime:
        first = runtime.run(images(2))
        before = first.clone()
        runtime.run(images(2) + 1)

    assert torch.equal(first, before)


def test_fp32_means_fp32_on_one_stream_and_so_many_threads(model: Artifact) -> None:
    compiled = OpenVino(model, device=torch.device("cpu"), threads=1)._request.get_compiled_model()

    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("NUM_STREAMS") == 1


def test_channels_that_openvino_would_take_are_refused(model: Artifact) -> None:
    """OpenVINO computes something from a wrong number of channels."""
    with open_runtime(model) as runtime, pytest.raises(RecipeError, match=r"takes an input of \[batch, 3, 4, 4\]"):
        runtime.run(torch.zeros(1, 4, 4, 3))


@pytest.mark.parametrize(
    ("suffix", "content"), [(".xml", b"not a model"), (".xml", None), (".bin", None), (".bin", b"")]
)
def test_a_broken_model_is_one_line(
    model: Artifact, tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, content: bytes | None
) -> None:
    broken = artifact(tmp_path / "broken.xml", "openvino", files=("broken.bin",))
    for each in (".xml", ".bin"):
        broken.path.with_suffix(each).write_bytes(model.path.with_suffix(each).read_bytes())
    whole = broken.path.with_suffix(suffix)
    whole.write_bytes(whole.read_bytes()[:700] if content is None else content)

    with pytest.raises(CheckpointError, match=r"broken.xml is not a whole OpenVINO model \(.+\); export") as caught:
        open_runtime(broken)
    assert len(str(caught.value).splitlines()) == 1
    assert "src/" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_gpu_is_refused(model: Artifact) -> None:
    with pytest.raises(RecipeError, match="openvino runs on the CPU here, not on cuda:0; choose device cpu"):
        OpenVino(model, device=torch.device("cuda", 0))
