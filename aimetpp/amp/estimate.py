# SPDX-License-Identifier: BSD-3-Clause
"""What a search will take, said before it runs."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from aimetpp import _C
from aimetpp.amp.evaluator import NUM_WARM, OFF, STREAM_SIZE, SimEvaluator
from aimetpp.common.memory import PeakMemory

# Evaluations of a phase that are timed where they replay.
NUM_TIMED = 4


@dataclass(frozen=True)
class PhaseEstimate:
    """What one phase will take, where nothing else uses the machine.

    Attributes:
        least: evaluations that are still to be made, at least.
        most: at most. Both depend on the scores only.
        known: scores that the results folder holds already.
        seconds_each: of one evaluation, as timed, with what replay saves; 0 where none
            is to be made.
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

    They are spread over the model, since what replay saves depends on where a group
    lies. Scores of the search's own points are kept for it.

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
    ends = _C.list_evaluations(problem, "front")
    at_once = {
        "sensitivity": evaluator.num_ranks,
        "front": evaluator.num_ranks if profile else 1,
    }
    phases = {}
    for name in at_once:
        before = evaluator.count_known(name)
        seconds, peak = 0.0, 0
        if before < counts[name][1]:
            with PeakMemory(evaluator.device) as memory:
                if name == "sensitivity":
                    seconds = _time_sensitivities(evaluator, moves)
                else:
                    seconds = _time_curve(evaluator, ends, moves)
            peak = memory.peak_bytes
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


def _spread(moves: list[list[int]], count: int) -> list[list[int]]:
    """At most so many of them, at even distances, in order."""
    size = min(count, len(moves))
    return [moves[(2 * i + 1) * len(moves) // (2 * size)] for i in range(size)]


def _time_sensitivities(evaluator: SimEvaluator, moves: list[list[int]]) -> float:
    """Mean seconds of an evaluation of phase 1, whose scores are kept."""
    if not moves:
        return 0.0
    phase = "sensitivity"
    refused = evaluator.num_refused
    seconds, _ = _warm_up(evaluator, phase, _spread(moves, NUM_WARM))
    if evaluator.num_refused > refused and evaluator.can_stream(phase):
        return evaluator.time_stream(phase, _spread(moves, STREAM_SIZE), keep=True)
    if not evaluator.may_replay:
        return seconds
    timed = [evaluator.time(phase, a, keep=True) for a in _spread(moves, NUM_TIMED)]
    return sum(timed) / len(timed)


def _time_curve(
    evaluator: SimEvaluator, ends: list[list[int]], moves: list[list[int]]
) -> float:
    """Mean seconds of an evaluation of phase 2. The scores of `ends` are kept; those of
    a walk that narrows some groups one after the other, in no sensible order, are not.
    """
    phase = "front"
    refused = evaluator.num_refused
    seconds, replays = _warm_up(evaluator, phase, ends)
    _, baseline, *_ = ends
    if not moves:
        return seconds
    if evaluator.num_refused > refused and evaluator.can_stream(phase):
        walk = _walk(baseline, _spread(moves, STREAM_SIZE))
        return evaluator.time_stream(phase, walk, keep=False)
    walk = _walk(baseline, _spread(moves, NUM_TIMED))
    if not replays:
        before = evaluator.replayed
        seconds = evaluator.time(phase, walk.pop(0), keep=False)
        if evaluator.replayed == before:
            return seconds
    timed = [evaluator.time(phase, assignment, keep=False) for assignment in walk]
    return sum(timed) / len(timed) if timed else seconds


def _walk(start: list[int], moves: list[list[int]]) -> list[list[int]]:
    """The start with each of the moves, one after the other: the last, the first, the
    last but one and so on, so that they do not follow the model's order.
    """
    order = [
        moves[-1 - i // 2] if i % 2 == 0 else moves[i // 2] for i in range(len(moves))
    ]
    assignments, walk = list(start), []
    for move in order:
        for group, candidate in enumerate(move):
            if candidate != OFF:
                assignments[group] = candidate
        walk.append(list(assignments))
    return walk


def _warm_up(
    evaluator: SimEvaluator, phase: str, assignments: list[list[int]]
) -> tuple[float, bool]:
    """Seconds of the last evaluation, whose scores are kept; whether it replayed."""
    seconds, before = 0.0, evaluator.replayed
    for assignment in assignments:
        before = evaluator.replayed
        seconds = evaluator.time(phase, assignment, keep=True)
    return seconds, evaluator.replayed > before
