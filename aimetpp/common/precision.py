# SPDX-License-Identifier: BSD-3-Clause
"""What a tensor is represented in, in the spellings that a user may write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aimetpp import _C
from aimetpp.common.defs import QuantizationDataType

_ACCEPTED = (
    'a name such as "int8", "fp16", "bf16" or "fp32", a Precision, or a pair '
    "(bitwidth, QuantizationDataType)"
)
_DATA_TYPES = {
    "int": QuantizationDataType.int,
    "float": QuantizationDataType.float,
}


@dataclass(frozen=True)
class Precision:
    """An integer of 2 to 32 bits, fp16, bf16, or fp32, which is full precision.

    Precisions compare by bit-width, then integer before float.

    Attributes:
        data_type: QuantizationDataType.int or .float.
        bitwidth: 2 to 32 for an integer, 16 or 32 for a float.
        is_bfloat: bfloat16 rather than IEEE half precision.

    Raises:
        TypeError: a bit-width that is not an int.
        ValueError: a bit-width that the data type does not have.
    """

    data_type: QuantizationDataType
    bitwidth: int
    is_bfloat: bool = False

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
        elif self.bitwidth not in (16, 32):
            raise ValueError(f"a float bitwidth must be 16 or 32, got {self.bitwidth}")
        _C.parse_precision(self.name)  # there is no bf32, no integer bfloat

    @property
    def name(self) -> str:
        """The short name: "int8", "fp16", "bf16", "fp32"."""
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
        return cls(QuantizationDataType.float, int(name[2:]), name.startswith("bf"))

    def __lt__(self, other: Precision) -> bool:
        return self._rank() < other._rank()

    def _rank(self) -> tuple[int, bool, bool]:
        is_float = self.data_type == QuantizationDataType.float
        return self.bitwidth, is_float, self.is_bfloat

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
