"""Precision: a network in fp16 or bf16, or its ONNX graph in int8 or fp8, with the fewest layers kept in fp32."""

from chase.exporters.precision.choose import in_half

__all__ = ["in_half"]
