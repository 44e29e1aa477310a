# SPDX-License-Identifier: BSD-3-Clause
"""Mixed precision: found automatically, or asked for layer by layer."""

from aimetpp.mixed_precision.auto import L2Target, Top1Target, auto_mixed_precision
from aimetpp.mixed_precision.choose import (
    choose_fast_mixed_precision,
    choose_mixed_precision,
    estimate_mixed_precision,
)
from aimetpp.mixed_precision.configurator import MixedPrecisionConfigurator, Precision

__all__ = [
    "L2Target",
    "MixedPrecisionConfigurator",
    "Precision",
    "Top1Target",
    "auto_mixed_precision",
    "choose_fast_mixed_precision",
    "choose_mixed_precision",
    "estimate_mixed_precision",
]
