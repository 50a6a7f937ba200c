"""A real Triton Inference Server loads what was exported, warms it up, and answers as the network.

The server is the one that nvidia-pytriton brings (`pip install --no-deps nvidia-pytriton`). It has no backend but
Python's, so two Python backends stand in for ONNX Runtime's and OpenVINO's: Triton reads, checks and serves the
repository itself, and runs the file inside through them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from small_exports import FACTS, images, job_for, tiny
from torch import Tensor

from chase.exporters.triton import write_triton

pytestmark = pytest.mark.slow

BACKEND = """
import json, os, sys
sys.path.extend({path!r})
import numpy
import triton_python_backend_utils as triton

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        return config

    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.input, self.output = config["input"][0]["name"], config["output"][0]["name"]
        self.run = {opened}(os.path.join(args["model_repository"], args["model_version"]))

    def execute(self, requests):
        # by DLPack, for this backend was built for numpy 1
        given = [numpy.from_dlpack(triton.get_input_tensor_by_name(each, self.input)) for each in requests]
        found = self.run(self.input, self.output, numpy.concatenate(given))
        parts = numpy.split(found, numpy.cumsum([len(each) for each in given])[:-1])
        return [triton.InferenceResponse([triton.Tensor.from_dlpack(self.output, part)]) for part in parts]

def onnxruntime(folder):
    from onnxruntime import InferenceSession
    session = InferenceSession(folder + "/model.onnx")
    return lambda input, output, x: session.run([output], {{input: x}})[0]

def openvino(folder):
    from openvino import Core
    model = Core().compile_model(folder + "/model.xml", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
    return lambda input, output, x: model({{input: x}})[output]
"""


def server_package() -> Path:
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        pytest.skip("needs Triton's server: pip install --no-deps nvidia-pytriton")
    package = Path(spec.origin).parent / "tritonserver"
    stub = package / "python_backend_stubs" / f"3.{sys.version_info.minor}" / "triton_python_backend_stub"
    if not stub.is_file() or not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        pytest.skip("nvidia-pytriton has no Python backend for this Python")
    return package


def backends(folder: Path, package: Path) -> Path:
    """A folder with Python's backend, and in its terms those that stand in for others."""
    shutil.copytree(package / "backends" / "python", folder / "python")
    stub = package / "python_backend_stubs" / f"3.{sys.version_info.minor}" / "triton_python_backend_stub"
    shutil.copy(stub, folder / "python")
    path = [each for each in sys.path if each.endswith("site-packages")]
    for name in ("onnxruntime", "openvino"):
        (folder / name).mkdir()
        (folder / name / "model.py").write_text(BACKEND.format(path=path, opened=name))
    return folder


def repository(folder: Path) -> Path:
    """A model of each backend, side by side."""
    job = job_for(tiny(), facts=FACTS)
    folder.mkdir()
    settings: dict[str, dict[str, Any]] = {
        "onnxruntime": {"max_batch_size": 8, "preferred_batch_sizes": (4,), "max_queue_delay_us": 50000},
        "openvino": {},
    }
    for name, given in settings.items():
        write_triton(job, folder / "made", backend=name, name=name, **given)
        (folder / "made" / name).rename(folder / name)
        (folder / "made").rmdir()
    return folder


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("localhost", 0))
        return int(opened.getsockname()[1])


def asked(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=60) as answer:
            content = answer.read()
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error
    return json.loads(content) if content else {}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    package, folder, port = server_package(), tmp_path_factory.mktemp("triton"), free_port()
    program = package / "bin" / "tritonserver"
    command = [str(program), "--model-repository", str(repository(folder / "models"))]
    command += ["--backend-directory", str(backends(folder / "backends", package)), "--http-port", str(port)]
    command += ["--allow-grpc=false", "--allow-metrics=false", "--disable-auto-complete-config"]
    libraries = [str(sysconfig.get_config_var("LIBDIR")), str(package.parents[1] / "nvidia_pytriton.libs")]
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(libraries), "PYTHONHOME": sys.base_prefix}
    log = folder / "log"
    with log.open("w") as opened, subprocess.Popen(command, env=environment, stdout=opened, stderr=opened) as process:
        url = f"http://localhost:{port}/v2"
        for _ in range(120):
            if process.poll() is not None:
                pytest.fail(log.read_text())
            try:
                asked(f"{url}/health/ready")
                break
            except (OSError, AssertionError):
                time.sleep(0.5)
        yield url
        process.terminate()


def inferred(server: str, model: str, x: Tensor, **parameters: Any) -> Any:
    entry = {"name": "input", "shape": list(x.shape), "datatype": "FP32", "data": x.flatten().tolist()}
    output = {"name": "logits"} | ({"parameters": parameters} if parameters else {})
    body = {"inputs": [entry], "outputs": [output]}
    return asked(f"{server}/models/{model}/infer", body)["outputs"][0]


@pytest.mark.parametrize("model", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_server_answers_as_the_network(server: str, model: str, batch: int) -> None:
    x = images(batch)

    found = inferred(server, model, x)

    assert found["shape"] == [batch, 4]
    torch.testing.assert_close(torch.tensor(found["data"]).reshape(batch, 4), tiny().eval()(x))


def test_the_server_knows_the_class_names(server: str) -> None:
    x = images(1)

    found = inferred(server, "onnxruntime", x, classification=1)

    best = int(tiny().eval()(x).argmax())
    assert found["data"][0].split(":")[1:] == [str(best), FACTS["classes"][best]]


def test_the_server_warmed_up_and_gathers_requests(server: str) -> None:
    before = asked(f"{server}/models/onnxruntime/stats")["model_stats"][0]
    assert {each["batch_size"] for each in before["batch_stats"]} >= {1, 4, 8}
    assert asked(f"{server}/models/onnxruntime/config")["max_batch_size"] == 8

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: inferred(server, "onnxruntime", images(1, seed=seed)), range(16)))

    after = asked(f"{server}/models/onnxruntime/stats")["model_stats"][0]
    assert after["inference_count"] - before["inference_count"] == 16
    assert after["execution_count"] - before["execution_count"] < 16


def test_the_server_refuses_a_batch_that_is_too_large(server: str) -> None:
    with pytest.raises(AssertionError, match="batch-size must be <= 8"):
        inferred(server, "onnxruntime", images(9))
