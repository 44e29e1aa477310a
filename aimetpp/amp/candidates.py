# SPDX-License-Identifier: BSD-3-Clause
"""Candidates as users write them, and the precision names that the engine takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aimetpp import _C
from aimetpp.common.defs import QuantizationDataType

# ((activation bitwidth, dtype), (param bitwidth, dtype))
Candidate = tuple[tuple[int, QuantizationDataType], tuple[int, QuantizationDataType]]

_WANTED = (
    "((activation_bitwidth, dtype), (param_bitwidth, dtype)), such as "
    "((8, QuantizationDataType.int), (4, QuantizationDataType.int))"
)


def precision_name(half: Any, where: str = "candidate") -> str:
    """The precision of one half of a candidate.

    Args:
        half: (bitwidth, dtype), the dtype a QuantizationDataType or "int" or
            "float"; or a precision's name, such as "int8" or "bf16".
        where: what the message calls it.

    Raises:
        TypeError: not of that form.
        ValueError: a bit-width that the dtype does not have.
    """
    if isinstance(half, str):
        return str(_C.parse_precision(half))
    if not isinstance(half, Sequence) or len(half) != 2:
        raise TypeError(f"{where}: required is {_WANTED}, got {half!r}")
    bitwidth, dtype = half
    if isinstance(bitwidth, bool) or not isinstance(bitwidth, int):
        raise TypeError(f"{where}: the bitwidth must be an int, got {bitwidth!r}")
    if isinstance(dtype, str) and dtype in ("int", "float"):
        dtype = QuantizationDataType[dtype]
    if dtype == QuantizationDataType.int:
        if not 2 <= bitwidth <= 32:
            raise ValueError(
                f"{where}: an integer bitwidth must be between 2 and 32, got {bitwidth}"
            )
        return f"int{bitwidth}"
    if dtype == QuantizationDataType.float:
        if bitwidth not in (16, 32):
            raise ValueError(
                f"{where}: a float bitwidth must be 16 or 32, got {bitwidth}"
            )
        return f"fp{bitwidth}"
    raise TypeError(
        f"{where}: the dtype must be QuantizationDataType.int or .float, got {dtype!r}"
    )


def half_of(precision: str) -> tuple[int, QuantizationDataType] | str:
    """(bitwidth, dtype) of a precision's name; "bf16", which has none, as it is."""
    if precision == "bf16":
        return precision
    dtype = "int" if precision.startswith("int") else "float"
    return int(precision.lstrip("intfp")), QuantizationDataType[dtype]


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
    halves = [precision_name(half) for half in candidate]
    letters = ("A", "W")[: len(halves)]
    return " ".join(
        letter + name.removeprefix("int")
        for letter, name in zip(letters, halves, strict=True)
    )
