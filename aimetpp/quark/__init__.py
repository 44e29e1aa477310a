# SPDX-License-Identifier: BSD-3-Clause
"""ONNX models quantized by configurations of AMD Quark for ONNX."""

from aimetpp.quark.config import Config, QuantizationConfig
from aimetpp.quark.qconfig import AutoMixprecisionConfig, QConfig
from aimetpp.quark.quantizer import ModelQuantizer
from aimetpp.quark.specs import (
    BFloat16Spec,
    CalibMethod,
    Float16Spec,
    Int8Spec,
    Int16Spec,
    Int32Spec,
    QLayerConfig,
    QTensorConfig,
    QuantGranularity,
    ScaleType,
    UInt8Spec,
    UInt16Spec,
    XInt8Spec,
)
from aimetpp.quark.types import (
    CalibrationDataReader,
    CalibrationMethod,
    ExtendedQuantFormat,
    ExtendedQuantType,
    PowerOfTwoMethod,
    QuantFormat,
    QuantType,
    VitisQuantFormat,
    VitisQuantType,
)

__all__ = [
    "AutoMixprecisionConfig",
    "BFloat16Spec",
    "CalibMethod",
    "CalibrationDataReader",
    "CalibrationMethod",
    "Config",
    "ExtendedQuantFormat",
    "ExtendedQuantType",
    "Float16Spec",
    "Int8Spec",
    "Int16Spec",
    "Int32Spec",
    "ModelQuantizer",
    "PowerOfTwoMethod",
    "QConfig",
    "QLayerConfig",
    "QTensorConfig",
    "QuantFormat",
    "QuantGranularity",
    "QuantType",
    "QuantizationConfig",
    "ScaleType",
    "UInt8Spec",
    "UInt16Spec",
    "VitisQuantFormat",
    "VitisQuantType",
    "XInt8Spec",
]
