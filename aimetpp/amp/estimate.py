# SPDX-License-Identifier: BSD-3-Clause
"""What a search will take, said before it runs."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from aimetpp import _C
from aimetpp.amp.evaluator import SimEvaluator
from aimetpp.common.memory import PeakMemory


@dataclass(frozen=True)
class PhaseEstimate:
    """What one phase will take, where nothing else uses the machine.

    Attributes:
        least: evaluations that are still to be made, at least.
        most: at most. Both depend on the scores only.
        known: scores that the results folder holds already.
        seconds_each: of one evaluation, as timed; 0 where none is to be made.
        at_once: evaluations that run at the same time, on as many ranks.
        peak_bytes: most memory that the process (on a GPU: that PyTorch) held while
            one was timed, all it holds counted; 0 where none was.
    """

    least: int
    most: int
    known: int
    seconds_each: float
    at_once: int
    peak_bytes: int

    @property
    def seconds(self) -> tuple[float, float]:
        """For the least and the most evaluations."""
        turns = (math.ceil(count / self.at_once) for count in (self.least, self.most))
        least, most = (turn * self.seconds_each for turn in turns)
        return least, most


@dataclass(frozen=True)
class SearchEstimate:
    """What a search will take; `str` of it is a table.

    Attributes:
        phases: by "sensitivity" (phase 1), "front" (phase 2), "convert" (phase 3).
        reference_evaluations: by phase, what AIMET's search evaluates at most for the
            same question.
        seconds_spent: on this estimate; its scores are kept for the search.
    """

    phases: dict[str, PhaseEstimate]
    reference_evaluations: dict[str, int]
    seconds_spent: float

    @property
    def seconds(self) -> tuple[float, float]:
        """Of all phases, at least and at most."""
        each = [phase.seconds for phase in self.phases.values()]
        return sum(low for low, _ in each), sum(high for _, high in each)

    @property
    def seconds_most(self) -> dict[str, float]:
        """By phase."""
        return {name: phase.seconds[1] for name, phase in self.phases.items()}

    def __str__(self) -> str:
        lines = [
            f"{'phase':<16} {'evaluations':>12} {'known':>6} {'AIMET':>6} "
            f"{'s each':>8} {'minutes':>13} {'peak MB':>8}"
        ]
        for name, phase in self.phases.items():
            least, most = (seconds / 60 for seconds in phase.seconds)
            reference = self.reference_evaluations.get(name)
            lines.append(
                f"{PHASE_TITLES[name]:<16} {_span(phase.least, phase.most):>12} "
                f"{phase.known:>6} {'-' if reference is None else reference:>6} "
                f"{phase.seconds_each:>8.3g} {_span(least, most):>13} "
                f"{phase.peak_bytes / 1e6:>8,.0f}"
            )
        least, most = (seconds / 60 for seconds in self.seconds)
        lines.append(
            f"in all {_span(least, most)} minutes; estimated in "
            f"{self.seconds_spent:.3g} s, whose scores are kept"
        )
        return "\n".join(lines)


PHASE_TITLES = {
    "sensitivity": "1, sensitivity",
    "front": "2, curve",
    "convert": "3, convert ops",
}


def _span(least: float, most: float) -> str:
    low, high = (
        str(value) if isinstance(value, int) else f"{value:.2g}"
        for value in (least, most)
    )
    return low if low == high else f"{low} to {high}"


def estimate_search(
    problem: _C.SearchProblem,
    options: _C.SearchOptions,
    evaluator: SimEvaluator,
    num_alphas: int,
    profile: bool,
) -> SearchEstimate:
    """Counts what is left to evaluate, and times a few evaluations of each phase.

    The scores that this takes are kept as those of the search, which needs them too.

    Args:
        problem: what is searched.
        options: how.
        evaluator: of the model.
        num_alphas: solutions of phase 3 that phase 2 has not evaluated.
        profile: the whole curve is asked for.
    """
    began = time.monotonic()
    counts = _C.count_evaluations(problem, options)
    moves = _C.list_evaluations(problem, "sensitivity")
    to_time = {
        # What lies far apart in the model may differ in time.
        "sensitivity": [moves[i] for i in sorted({0, len(moves) // 2, len(moves) - 1})]
        if moves
        else [],
        "front": _C.list_evaluations(problem, "front"),
    }
    at_once = {
        "sensitivity": evaluator.num_ranks,
        "front": evaluator.num_ranks if profile else 1,
    }
    phases = {}
    for name, assignments in to_time.items():
        before = evaluator.count_known(name)
        seconds, peak = 0.0, 0
        if before < counts[name][1]:
            seconds, peak = _time(evaluator, name, assignments)
        known = evaluator.count_known(name)
        least, most = (max(0, count - known) for count in counts[name])
        phases[name] = PhaseEstimate(least, most, before, seconds, at_once[name], peak)
    if num_alphas:
        curve = phases["front"]
        phases["convert"] = PhaseEstimate(
            0, num_alphas, 0, curve.seconds_each, 1, curve.peak_bytes
        )
    reference = _C.count_reference_evaluations(problem, options)
    return SearchEstimate(
        phases,
        {name: most for name, (_, most) in reference.items()},
        time.monotonic() - began,
    )


def _time(
    evaluator: SimEvaluator, phase: str, assignments: list[list[int]]
) -> tuple[float, int]:
    """Mean seconds of an evaluation, the first left out, which warms up; the peak of
    memory. What is known already is evaluated again, and its score kept.
    """
    seconds: list[float] = []
    with PeakMemory(evaluator.device) as memory:
        for assignment in assignments:
            seconds.append(evaluator.time(phase, assignment))
    timed = seconds[1:] or seconds
    return (sum(timed) / len(timed) if timed else 0.0), memory.peak_bytes
