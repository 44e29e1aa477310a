# SPDX-License-Identifier: BSD-3-Clause
"""Telling how far a search is."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tqdm import tqdm

# Called before each evaluation: phase ("sensitivity", "front", "convert"), evaluations
# done in it, how many are expected.
Progress = Callable[[str, int, int], Any]

_TITLES = {
    "sensitivity": "  phase 1, sensitivity",
    "front": "  phase 2, curve",
    "convert": "  phase 3, convert ops",
}


def progress_reporter(
    progress: Any,
    estimated_seconds: Mapping[str, float] | None = None,
    bars: bool = True,
) -> contextlib.AbstractContextManager[Progress | None]:
    """What the engine calls.

    Args:
        progress: a callable; True or False for bars or none; None for bars where
            stderr is a terminal.
        estimated_seconds: by phase, for the bars to show beside the time that has
            passed.
        bars: False where another process shows them.

    Raises:
        TypeError: anything else.
    """
    if progress is None:
        progress = sys.stderr.isatty()
    if progress is True:
        return _bars(estimated_seconds) if bars else contextlib.nullcontext()
    if progress is False:
        return contextlib.nullcontext()
    if not callable(progress):
        raise TypeError(
            "progress must be None, a bool or a callable(phase, done, total), got "
            f"{type(progress).__name__}"
        )
    return contextlib.nullcontext(progress)


@contextlib.contextmanager
def _bars(estimated_seconds: Mapping[str, float] | None) -> Iterator[Progress]:
    bars = _Bars(estimated_seconds)
    try:
        yield bars.report
        bars.finish()
    finally:
        bars.close()


class _Bars:
    """A bar for the search, and below it one for each phase that has begun."""

    def __init__(self, estimated_seconds: Mapping[str, float] | None) -> None:
        self._estimated = estimated_seconds
        self._phases: dict[str, tqdm[Any]] = {}
        self._now = ""
        self._all = self._bar("AMP search", 0)
        if estimated_seconds is not None:
            self._show_estimate(self._all, sum(estimated_seconds.values()))

    def report(self, phase: str, done: int, total: int) -> None:
        """As `Progress`."""
        if phase != self._now:
            self.finish()
            self._now = phase
        if phase not in self._phases:
            bar = self._bar(_TITLES[phase], 1 + len(self._phases))
            if self._estimated is not None:
                self._show_estimate(bar, self._estimated.get(phase, 0.0))
            self._phases[phase] = bar
        self._set(self._phases[phase], done, total)
        self._sum_up()

    def finish(self) -> None:
        """The last evaluation that was reported is done."""
        if self._now:
            bar = self._phases[self._now]
            self._set(bar, min(bar.n + 1, bar.total), bar.total)
            self._sum_up()

    def close(self) -> None:
        """Leaves the bars as they are."""
        for bar in (*reversed(self._phases.values()), self._all):
            bar.close()

    def _bar(self, title: str, position: int) -> tqdm[Any]:
        return tqdm(
            desc=f"{title:<22}",
            unit="eval",
            file=sys.stderr,
            position=position,
            total=0,
            dynamic_ncols=True,
        )

    def _show_estimate(self, bar: tqdm[Any], seconds: float) -> None:
        bar.set_postfix_str(f"estimated {tqdm.format_interval(seconds)}", False)

    def _set(self, bar: tqdm[Any], done: int, total: int) -> None:
        bar.total, bar.n = total, done
        bar.refresh()

    def _sum_up(self) -> None:
        bars = self._phases.values()
        self._set(self._all, sum(b.n for b in bars), sum(b.total for b in bars))
