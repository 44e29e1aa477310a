# SPDX-License-Identifier: BSD-3-Clause
"""Telling how far a search is."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

# Called before each evaluation: phase ("sensitivity", "front", "convert"), evaluations
# done in it, how many are expected.
Progress = Callable[[str, int, int], Any]

_TITLES = {
    "sensitivity": "AMP phase 1",
    "front": "AMP phase 2",
    "convert": "AMP phase 3",
}


def progress_reporter(
    progress: Any,
) -> contextlib.AbstractContextManager[Progress | None]:
    """What the engine calls.

    Args:
        progress: a callable; True or False for a bar or none; None for a bar where
            stderr is a terminal.

    Raises:
        TypeError: anything else.
    """
    if progress is None:
        progress = sys.stderr.isatty()
    if progress is True:
        return _bars()
    if progress is False:
        return contextlib.nullcontext()
    if not callable(progress):
        raise TypeError(
            "progress must be None, a bool or a callable(phase, done, total), got "
            f"{type(progress).__name__}"
        )
    return contextlib.nullcontext(progress)


@contextlib.contextmanager
def _bars() -> Iterator[Progress]:
    bars: dict[str, tqdm[Any]] = {}

    def report(phase: str, done: int, total: int) -> None:
        if phase not in bars:
            bars[phase] = tqdm(desc=_TITLES[phase], unit="evaluation", file=sys.stderr)
        bars[phase].total = total
        bars[phase].n = done
        bars[phase].refresh()

    try:
        yield report
    finally:
        for bar in bars.values():
            bar.close()
