# SPDX-License-Identifier: BSD-3-Clause
"""Candidates as users write them, and the precision names that the engine takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aimetpp.common.defs import QuantizationDataType
from aimetpp.common.precision import Precision, precision_name

# ((activation bitwidth, dtype), (param bitwidth, dtype))
Candidate = tuple[tuple[int, QuantizationDataType], tuple[int, QuantizationDataType]]

_WANTED = (
    "((activation_bitwidth, dtype), (param_bitwidth, dtype)), such as "
    "((8, QuantizationDataType.int), (4, QuantizationDataType.int)) or "
    '("fp8_e4m3", "int4")'
)


def half_of(name: str) -> tuple[int, QuantizationDataType] | str:
    """(bitwidth, dtype) of a precision's name; the name itself where those two do not
    tell it apart from others: "bf16", "fp8_e4m3", "fp8_e5m2".
    """
    precision = Precision.parse(name)
    pair = precision.bitwidth, precision.data_type
    return pair if precision.is_told_by_pair else name


def parse_candidates(candidates: Any) -> list[tuple[str, str]]:
    """(activation, param) precision names of a user's candidates.

    Raises:
        TypeError: not a list or tuple of candidates.
        ValueError: empty, or a bit-width out of range; the message holds its index.
    """
    if isinstance(candidates, str) or not isinstance(candidates, Sequence):
        raise TypeError(
            f"candidates must be a list of {_WANTED}, got {type(candidates).__name__}"
        )
    if not candidates:
        raise ValueError(f"candidates must not be empty; it is a list of {_WANTED}")
    parsed = []
    for index, candidate in enumerate(candidates):
        where = f"candidates[{index}]"
        whole = isinstance(candidate, Sequence) and not isinstance(candidate, str)
        if not whole or len(candidate) != 2:
            raise TypeError(f"{where}: required is {_WANTED}, got {candidate!r}")
        parsed.append(
            (precision_name(candidate[0], where), precision_name(candidate[1], where))
        )
    return parsed


def as_candidate(precisions: tuple[str, str]) -> Any:
    """A candidate in the form that AIMET's scripts compare with."""
    return half_of(precisions[0]), half_of(precisions[1])


def candidate_text(candidate: Any) -> str:
    """A candidate for tables and files: "A8 W4", "Afp16 W8", activation only "A8"."""
    halves = [precision_name(half, "candidate") for half in candidate]
    letters = ("A", "W")[: len(halves)]
    return " ".join(
        letter + name.removeprefix("int")
        for letter, name in zip(letters, halves, strict=True)
    )
