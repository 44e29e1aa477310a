# SPDX-License-Identifier: BSD-3-Clause
"""Globs over a list of names that does not change."""

from __future__ import annotations

import bisect
import fnmatch
import re
from collections.abc import Iterable

_WILDCARD = re.compile(r"[*?[]")


def is_glob(name: str) -> bool:
    """True where a character of it may stand for others."""
    return _WILDCARD.search(name) is not None


class NameMatcher:
    """Finds the names that a glob matches, looking only at those that begin as it
    does.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(names)

    def matches(self, pattern: str) -> list[str]:
        """The names that match, in alphabetical order; case counts."""
        wildcard = _WILDCARD.search(pattern)
        prefix = pattern if wildcard is None else pattern[: wildcard.start()]
        first = bisect.bisect_left(self._names, prefix)
        # No character sorts above the last one there is.
        last = bisect.bisect_left(self._names, prefix + chr(0x10FFFF), first)
        candidates = self._names[first:last]
        match = re.compile(fnmatch.translate(pattern)).match
        return [name for name in candidates if match(name)]
