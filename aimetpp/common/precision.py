# SPDX-License-Identifier: BSD-3-Clause
"""What a tensor is represented in, in the spellings that a user may write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aimetpp import _C
from aimetpp.common.defs import QuantizationDataType

_ACCEPTED = (
    'a name such as "int8", "fp8_e4m3", "fp16" or "fp32", a Precision, or a pair '
    "(bitwidth, QuantizationDataType)"
)
_DATA_TYPES = {
    "int": QuantizationDataType.int,
    "float": QuantizationDataType.float,
}

# 8-bit floats by their exponent bits.
_FLOAT8 = {
    form.exponent_bits: form.name for form in _C.narrow_floats() if form.bitwidth == 8
}


@dataclass(frozen=True)
class Precision:
    """An integer of 2 to 32 bits, an 8-bit float, fp16, bf16, or fp32, which is full
    precision.

    Precisions compare by bit-width, then integer before float.

    Attributes:
        data_type: QuantizationDataType.int or .float.
        bitwidth: 2 to 32 for an integer; 8, 16 or 32 for a float.
        is_bfloat: bfloat16 rather than IEEE half precision.
        exponent_bits: of an 8-bit float 4 (e4m3) or 5 (e5m2), else None.

    Raises:
        TypeError: a bit-width that is not an int.
        ValueError: a bit-width that the data type does not have; an 8-bit float
            without exponent bits, or another precision with some.
    """

    data_type: QuantizationDataType
    bitwidth: int
    is_bfloat: bool = False
    exponent_bits: int | None = None

    def __post_init__(self) -> None:
        if self.data_type not in _DATA_TYPES.values():
            raise ValueError(
                "Precision: data_type must be QuantizationDataType.int or .float, got "
                f"{self.data_type!r}"
            )
        if not isinstance(self.bitwidth, int) or isinstance(self.bitwidth, bool):
            raise TypeError(f"the bitwidth must be an int, got {self.bitwidth!r}")
        if self.data_type == QuantizationDataType.int:
            if not 2 <= self.bitwidth <= 32:
                raise ValueError(
                    f"an integer bitwidth must be between 2 and 32, got {self.bitwidth}"
                )
        elif self.bitwidth not in (8, 16, 32):
            raise ValueError(
                f"a float bitwidth must be 8, 16 or 32, got {self.bitwidth}"
            )
        is_float8 = self.bitwidth == 8 and self.data_type != QuantizationDataType.int
        if is_float8 and self.exponent_bits not in _FLOAT8:
            raise ValueError(
                'an 8-bit float has 4 or 5 exponent bits: write "fp8_e4m3" or '
                f'"fp8_e5m2"; got exponent_bits {self.exponent_bits}'
            )
        if not is_float8 and self.exponent_bits is not None:
            raise ValueError(
                "exponent_bits are for 8-bit floats, got "
                f"{self.exponent_bits} for {self.bitwidth} bits"
            )
        _C.parse_precision(self.name)  # there is no bf32, no integer bfloat

    @property
    def name(self) -> str:
        """The short name: "int8", "fp8_e4m3", "fp16", "bf16", "fp32"."""
        if self.exponent_bits is not None:
            return _FLOAT8[self.exponent_bits]
        if self.is_bfloat:
            return f"bf{self.bitwidth}"
        word = "int" if self.data_type == QuantizationDataType.int else "fp"
        return f"{word}{self.bitwidth}"

    @classmethod
    def parse(cls, name: str) -> Precision:
        """From a short name.

        Raises:
            ValueError: an unknown name; the message lists the known ones.
        """
        name = _C.parse_precision(name)
        if name.startswith("int"):
            return cls(QuantizationDataType.int, int(name[3:]))
        for exponent_bits, float8 in _FLOAT8.items():
            if name == float8:
                return cls(QuantizationDataType.float, 8, exponent_bits=exponent_bits)
        return cls(QuantizationDataType.float, int(name[2:]), name.startswith("bf"))

    def __lt__(self, other: Precision) -> bool:
        return self._rank() < other._rank()

    @property
    def is_told_by_pair(self) -> bool:
        """Whether bit-width and data type alone, as AIMET's candidates have them, say
        which precision it is.
        """
        return not self.is_bfloat and self.exponent_bits is None

    def _rank(self) -> tuple[int, bool, bool, int]:
        is_float = self.data_type == QuantizationDataType.float
        return self.bitwidth, is_float, self.is_bfloat, self.exponent_bits or 0

    def __str__(self) -> str:
        return self.name


def is_precision(value: Any) -> bool:
    """True for one precision in any spelling, False for a structure of them.

    Strings and pairs of a number and a data type count even if their value is wrong:
    `precision_name` says so.
    """
    if isinstance(value, str | Precision):
        return True
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    # A number stands nowhere in a structure, so that the type may be a word here.
    is_number = isinstance(value[0], int)
    return isinstance(value[1], QuantizationDataType) or (
        is_number and isinstance(value[1], str)
    )


def precision_name(value: Any, argument: str) -> str:
    """The short name of one precision.

    Args:
        value: a precision in any spelling; in a pair the data type may also be "int"
            or "float".
        argument: what to call it in an error.

    Raises:
        TypeError: not a precision.
        ValueError: an unknown name or bit-width.
    """
    try:
        if isinstance(value, str):
            return _C.parse_precision(value)
        if isinstance(value, Sequence) and len(value) == 2:
            bitwidth, data_type = value
            if isinstance(data_type, str):
                data_type = _DATA_TYPES.get(data_type)
            if isinstance(data_type, QuantizationDataType):
                value = Precision(data_type, bitwidth)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{argument}: {error}") from None
    if not isinstance(value, Precision):
        raise TypeError(f"{argument} must be {_ACCEPTED}, got {value!r}")
    return value.name
