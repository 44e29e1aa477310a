# SPDX-License-Identifier: BSD-3-Clause
"""Quantization simulation."""

from aimetpp.quantsim.inspection import Explanation, Site
from aimetpp.quantsim.simulation import QuantizationSimModel

__all__ = ["Explanation", "QuantizationSimModel", "Site"]
