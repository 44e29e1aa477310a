# SPDX-License-Identifier: BSD-3-Clause
"""Text for messages and files."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import pairwise

# A float64 that is written with so many is read back as the same.
_MOST_DIGITS = 17


def shortened(names: Sequence[str], most: int = 10) -> str:
    """The names with commas between them, with "..." for those after `most`."""
    more = ", ..." if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(count: int, noun: str) -> str:
    """The number and the noun, in the plural but for 1."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def distinct_numbers(values: Sequence[float], digits: int = 6) -> list[str]:
    """The numbers with so many significant digits, or as many more as it takes that
    no two neighbours that differ look the same.
    """
    while True:
        texts = [_significant(value, digits) for value in values]
        alike = any(
            a == b and x != y
            for (a, x), (b, y) in pairwise(zip(texts, values, strict=True))
        )
        if not alike or digits >= _MOST_DIGITS:
            return texts
        digits += 1


def _significant(value: float, digits: int) -> str:
    """Of several in a column the decimals stand where they are, zeros included."""
    return format(value, f"#.{digits}g").rstrip(".")


def json_number(value: float) -> float | str:
    """JSON has no infinities and no NaN: they are written as strings."""
    return value if math.isfinite(value) else str(value)


def source_of_caller(skipped_folders: tuple[str, ...]) -> str:
    """The innermost frame that is in none of the folders, as "file.py:12".

    Empty where all frames are. The import system counts as skipped.

    Args:
        skipped_folders: starts of file names, each ending with a separator.
    """
    skipped = (*skipped_folders, "<frozen importlib")
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(skipped):
        if frame.f_back is None:
            return ""
        frame = frame.f_back
    name = frame.f_code.co_filename.replace("\\", "/")
    return f"{name.rsplit('/', 1)[-1]}:{frame.f_lineno}"
