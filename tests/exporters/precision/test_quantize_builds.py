"""Quantised graphs through NVIDIA's own parser and builder, which TensorRT for RTX has without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from precision_networks import family, family_onnx, images

from chase.exporters.parity import reference, signal_to_noise
from chase.exporters.precision.quantize import Quantisation

trt: Any = pytest.importorskip("tensorrt_rtx")


class Log(trt.ILogger):  # type: ignore[misc]
    """Keeps errors, which come as lines."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.lines: list[str] = []

    def log(self, severity: Any, line: str) -> None:
        if severity <= trt.ILogger.ERROR:
            self.lines.append(line)


def build(proto: Any) -> tuple[Any, list[str]]:
    """An engine for RTX 40 at any batch size up to 4, or None; and what was said."""
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(proto.SerializeToString()):
        return None, [parser.get_error(index).desc() for index in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    profile = builder.create_optimization_profile()
    shape = tuple(network.get_input(0).shape)[1:]
    profile.set_shape("input", (1, *shape), (2, *shape), (4, *shape))
    config.add_optimization_profile(profile)
    return builder.build_serialized_network(network, config), log.lines


@pytest.mark.parametrize("kind", ["int8", "int8-fp16", "fp8"])
@pytest.mark.parametrize(
    "name", ["resnet", *(pytest.param(each, marks=pytest.mark.slow) for each in ("vit", "mobilenet"))]
)
def test_every_kind_is_valid_builds_and_answers_nearly_as_the_network(name: str, kind: str) -> None:
    x = images(8, seed=3)
    quantisation = Quantisation(family_onnx(name), images(8), kind)
    proto = quantisation.model()

    onnx.checker.check_model(proto, full_check=True)
    snr = signal_to_noise(reference(family(name), x), quantisation.answers(x))
    engine, said = build(proto)

    assert snr is not None
    assert snr > (20 if kind == "fp8" else 25)
    assert {each.type.tensor_type.elem_type for each in (*proto.graph.input, *proto.graph.output)} == {1}  # float32
    assert engine is not None, said
    assert engine.nbytes > 1000


def test_what_onnxruntime_makes_by_default_is_refused(tmp_path: Path) -> None:
    """It quantises biases to int32 and shifts zero points: the reason why pairs are placed by our own rules."""
    quantization: Any = pytest.importorskip("onnxruntime.quantization")
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    source.write_bytes(family_onnx("resnet").SerializeToString())

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        given = iter([{"input": images(8).numpy()}])

        def get_next(self) -> Any:
            return next(self.given, None)

    quantization.quantize_static(str(source), str(target), Reader())

    engine, said = build(onnx.load(str(target)))
    assert engine is None
    assert "zero point" in said[0] or "Int32" in said[0]
