# SPDX-License-Identifier: BSD-3-Clause
"""The names that a configuration of AMD Quark for ONNX is written with."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any


class CalibrationMethod(Enum):
    """How ranges are chosen from what calibration has seen."""

    MinMax = 0
    Entropy = 1
    Percentile = 2
    Distribution = 3


class PowerOfTwoMethod(Enum):
    """The same, with scales that are powers of two."""

    NonOverflow = 0
    MinMSE = 1


class QuantFormat(Enum):
    """How the quantized file expresses quantization."""

    QOperator = 0
    QDQ = 1


class ExtendedQuantFormat(Enum):
    """How the quantized file expresses quantization."""

    QOperator = 0
    QDQ = 1


class VitisQuantFormat(Enum):
    """How the quantized file expresses quantization."""

    QDQ = 2
    FixNeuron = 3
    BFPFixNeuron = 4
    MXFixNeuron = 5


class QuantType(Enum):
    """What a tensor is quantized to."""

    QInt8 = 0
    QUInt8 = 1
    QFLOAT8E4M3FN = 2
    QInt16 = 3
    QUInt16 = 4
    QInt4 = 5
    QUInt4 = 6


class ExtendedQuantType(Enum):
    """What a tensor is quantized to."""

    QInt8 = 1
    QUInt8 = 2
    QInt16 = 3
    QUInt16 = 4
    QInt4 = 5
    QUInt4 = 6
    QInt32 = 7
    QUInt32 = 8
    QFloat16 = 9
    QBFloat16 = 10
    QBFP = 11
    QMX = 12


VitisQuantType = ExtendedQuantType

_PRECISIONS = {
    "QInt4": "int4",
    "QUInt4": "int4",
    "QInt8": "int8",
    "QUInt8": "int8",
    "QInt16": "int16",
    "QUInt16": "int16",
    "QInt32": "int32",
    "QUInt32": "int32",
    "QFloat16": "fp16",
    "QBFloat16": "bf16",
}


def precision_of(value: Any, where: str) -> str:
    """The precision of a quant type.

    A signed and an unsigned type of one width have the same grid, moved by the zero
    point, and are one precision.

    Raises:
        TypeError: no quant type.
        ValueError: one that is not simulated here: block formats, float8.
    """
    if not isinstance(value, QuantType | ExtendedQuantType):
        raise TypeError(
            f"{where} must be a QuantType or ExtendedQuantType (VitisQuantType), got "
            f"{value!r}"
        )
    if value.name not in _PRECISIONS:
        raise ValueError(
            f"{where}: {value.name} is not simulated; there are {sorted(_PRECISIONS)}"
        )
    return _PRECISIONS[value.name]


def scheme_of(method: Any) -> str:
    """The calibration scheme of a method.

    Raises:
        TypeError: no method.
        ValueError: one that aimetpp does not have.
    """
    schemes = {
        CalibrationMethod.MinMax: "min_max",
        CalibrationMethod.Percentile: "percentile",
        PowerOfTwoMethod.NonOverflow: "min_max",
        PowerOfTwoMethod.MinMSE: "mse",
    }
    if not isinstance(method, CalibrationMethod | PowerOfTwoMethod):
        raise TypeError(
            "calibrate_method must be a CalibrationMethod or PowerOfTwoMethod, got "
            f"{method!r}"
        )
    if method not in schemes:
        raise ValueError(
            f"calibrate_method: {method.name} is not there; use "
            f"{', '.join(str(known) for known in schemes)}"
        )
    return schemes[method]


class CalibrationDataReader:
    """Yields calibration data; onnxruntime's class of that name does as well."""

    def get_next(self) -> dict[str, Any] | None:
        """The next feeds, arrays by input name; None at the end."""
        raise NotImplementedError


def feeds_of(reader: Any) -> Iterator[dict[str, Any]]:
    """The feeds of a CalibrationDataReader, or of an iterable of them.

    Raises:
        TypeError: neither.
    """
    if hasattr(reader, "get_next"):
        while (feeds := reader.get_next()) is not None:
            yield feeds
    elif hasattr(reader, "__iter__"):
        yield from reader
    else:
        raise TypeError(
            "calibration_data_reader must be a CalibrationDataReader or an iterable of "
            f"dicts of arrays by input name, got {type(reader).__name__}"
        )
