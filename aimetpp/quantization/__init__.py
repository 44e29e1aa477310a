# SPDX-License-Identifier: BSD-3-Clause
"""Quantizers: the modules that stand in a quantized module's slots."""

from aimetpp.quantization.affine import Dequantize, Quantize, QuantizeDequantize
from aimetpp.quantization.base import QuantizerBase
from aimetpp.quantization.float import FloatQuantizeDequantize

__all__ = [
    "Dequantize",
    "FloatQuantizeDequantize",
    "Quantize",
    "QuantizeDequantize",
    "QuantizerBase",
]
