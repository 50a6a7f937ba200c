from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_artifacts import artifact, images, onnx_file, tiny

from chase.artifact import Artifact
from chase.errors import CheckpointError, MissingDependency, RecipeError
from chase.packages import require
from chase.runtimes import open_runtime
from chase.runtimes.onnxruntime import OnnxRuntime

DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return onnx_file(tmp_path_factory.mktemp("onnx"))


def test_io_binding_gives_what_arrays_give(file: Artifact) -> None:
    runtime = OnnxRuntime(file, device=DEVICE)
    x = images(4)

    assert torch.equal(runtime._run_bound(x), runtime.run(x))
    assert torch.equal(runtime.run(x.to(memory_format=torch.channels_last)), runtime.run(x))


def test_a_graph_has_memory_of_its_own_for_each_shape_and_hands_out_copies(file: Artifact) -> None:
    runtime = OnnxRuntime(file, device=DEVICE)
    runtime._graph_option = "gpu_graph_id"  # which the CPU's provider ignores
    first, second, other = images(2), images(4)[2:], images(3)

    answers = [runtime._run_bound(x) for x in (first, second, other)]

    torch.testing.assert_close(torch.cat(answers), tiny()(torch.cat([first, second, other])))
    slots = list(runtime._slots.values())
    assert [list(slot.x.shape) for slot in slots] == [[2, 3, 4, 4], [3, 3, 4, 4]]
    assert torch.equal(slots[0].x, second)
    assert [slot.options.get_run_config_entry("gpu_graph_id") for slot in slots] == ["1", "2"]


def test_threads_come_from_torch_or_from_the_caller(file: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    assert threads_of(OnnxRuntime(file, device=DEVICE)) == 2
    assert threads_of(OnnxRuntime(file, device=DEVICE, threads=1)) == 1


def threads_of(runtime: OnnxRuntime) -> int:
    return int(runtime._session.get_session_options().intra_op_num_threads)


def test_a_file_for_images_takes_bytes(tmp_path: Path) -> None:
    source = onnx_file(tmp_path, "UINT8", preprocessing=True)
    x = torch.arange(96, dtype=torch.uint8).reshape(2, 4, 4, 3)

    with open_runtime(source) as runtime:
        torch.testing.assert_close(runtime.run(x), tiny()(x.float()))
        with pytest.raises(RecipeError, match=r"takes an input of \[batch, 4, 4, 3\] uint8"):
            runtime.run(x.float())


@pytest.mark.parametrize(("dtype", "error"), [("FLOAT16", 1e-2), ("DOUBLE", 1e-6)])
def test_a_file_in_another_type_is_given_it_and_answers_in_fp32(tmp_path: Path, dtype: str, error: float) -> None:
    with open_runtime(onnx_file(tmp_path, dtype)) as runtime:
        found = runtime.run(images(2))

    assert found.dtype == torch.float32
    torch.testing.assert_close(found, tiny()(images(2)), atol=error, rtol=0)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    graph = "ids (int64[N] x) => (int64[N] y) { y = Neg(x) }"
    source = parsed(graph, artifact(tmp_path / "ids.onnx", "onnx"))

    with pytest.raises(
        CheckpointError, match=r"ids.onnx is no network of one input .*: it has x \['N'\] tensor\(int64\)"
    ):
        open_runtime(source)


def parsed(graph: str, source: Artifact, opset: int = 17) -> Artifact:
    onnx = require("onnx", purpose="this test", install="onnx")
    parser = require("onnx.parser", purpose="this test", install="onnx")
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> {graph}')
    onnx.save(proto, str(source.path))
    return source


def test_an_operator_without_a_kernel_is_a_missing_dependency(tmp_path: Path) -> None:
    """The CPU's provider has no convolution in bf16: the file is whole, this machine cannot run it."""
    graph = (
        "net (bfloat16[N,1,4,4] input, bfloat16[1,1,1,1] w) => (bfloat16[N,1,4,4] logits) { logits = Conv(input, w) }"
    )
    source = parsed(graph, artifact(tmp_path / "half.onnx", "onnx", precision="bf16"), opset=22)

    with pytest.raises(MissingDependency, match=r"CPUExecutionProvider cannot run half.onnx: .* Conv\(22\) node"):
        open_runtime(source)


def test_every_other_provider_wants_a_gpu(file: Artifact) -> None:
    for name in ("onnxruntime-tensorrt", "onnxruntime-tensorrt-rtx"):
        with pytest.raises(RecipeError, match=f"{name} runs on a CUDA device, not on cpu; choose device cuda"):
            open_runtime(file, runtime=name)


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_cuda_answers_as_the_cpu(file: Artifact, cuda_graph: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")

    with open_runtime(file, device="cuda", cuda_graph=cuda_graph) as runtime:
        for count in (1, 3, 1):
            torch.testing.assert_close(runtime.run(images(count).cuda()).cpu(), tiny()(images(count)))
        assert runtime.provider == "CUDAExecutionProvider"
