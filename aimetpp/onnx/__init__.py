# SPDX-License-Identifier: BSD-3-Clause
"""Simulated quantization and mixed precision of ONNX models, run by onnxruntime."""

from aimetpp.onnx.quantsim import QuantizationSimModel

# Precisions, for `param_type` and `activation_type`.
int4, int8, int16 = "int4", "int8", "int16"
float16, float32 = "fp16", "fp32"

__all__ = ["QuantizationSimModel", "float16", "float32", "int16", "int4", "int8"]
