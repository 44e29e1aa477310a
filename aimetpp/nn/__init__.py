# SPDX-License-Identifier: BSD-3-Clause
"""Quantized modules."""

from aimetpp.nn.calibration import compute_encodings
from aimetpp.nn.wrap import BaseQuantizationMixin, QuantizationMixin

__all__ = ["BaseQuantizationMixin", "QuantizationMixin", "compute_encodings"]
