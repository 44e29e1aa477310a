# SPDX-License-Identifier: BSD-3-Clause
"""Quantization simulation."""

from aimetpp.quantsim.artifacts import load_encodings_to_sim
from aimetpp.quantsim.inspection import Explanation, Site
from aimetpp.quantsim.params import QuantParams
from aimetpp.quantsim.simulation import QuantizationSimModel

__all__ = [
    "Explanation",
    "QuantParams",
    "QuantizationSimModel",
    "Site",
    "load_encodings_to_sim",
]
