# SPDX-License-Identifier: BSD-3-Clause
"""The definitions of `aimetpp.common.defs`, under their short path."""

from aimetpp.common.defs import CallbackFunc, QuantizationDataType, QuantScheme

__all__ = ["CallbackFunc", "QuantScheme", "QuantizationDataType"]
