# SPDX-License-Identifier: BSD-3-Clause
"""Phase 3: fewer convert ops, measured at every alpha, with files for each."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aimetpp import _C
from aimetpp.amp.arguments import check_cost
from aimetpp.amp.candidates import candidate_text
from aimetpp.amp.evaluator import SimEvaluator
from aimetpp.amp.progress import Progress
from aimetpp.amp.quantizer_groups import NamedGroup
from aimetpp.amp.results import AlphaPoint
from aimetpp.amp.simulation import Simulation
from aimetpp.common.files import atomic_write
from aimetpp.common.precision import precision_name
from aimetpp.common.text import json_number

ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

ConvertTable = dict[tuple[str, str], float]


@dataclass(frozen=True)
class MeasuredAlpha:
    """A solution of the engine with its phase-2 score."""

    solution: _C.ConvertSolution
    score: float


def parse_convert_costs(costs: Any, used: Sequence[str]) -> ConvertTable:
    """A user's cost of converting one element, by precision names.

    Args:
        costs: None for the default (the bytes read and written), or a mapping from
            (precision, precision), in any spelling, to a number.
        used: activation precisions that can meet; each pair must be there.

    Raises:
        TypeError: not a mapping, a key that is no pair, a cost that is no number.
        ValueError: a missing pair, or a cost that is negative or not finite.
    """
    if costs is None:
        return {}
    if not isinstance(costs, Mapping):
        raise TypeError(
            "convert_costs must be a dict from (precision, precision) to the cost of "
            f"converting one element, got {type(costs).__name__}"
        )
    table: ConvertTable = {}
    for key, cost in costs.items():
        if not isinstance(key, tuple) or len(key) != 2:
            raise TypeError(
                f"convert_costs: keys must be (precision, precision), got {key!r}"
            )
        check_cost(cost, f"convert_costs[{key!r}]")
        source, target = (precision_name(half, "convert_costs") for half in key)
        table[source, target] = float(cost)
    kinds = sorted(set(used))
    missing = [(a, b) for a in kinds for b in kinds if a != b and (a, b) not in table]
    if missing:
        raise ValueError(f"convert_costs must hold every pair; missing: {missing}")
    return table


def reduce_convert_ops(
    sim: Simulation,
    problem: _C.SearchProblem,
    costs: ConvertTable,
    start: Sequence[int],
    evaluator: SimEvaluator,
    progress: Progress | None,
) -> list[MeasuredAlpha]:
    """Phase 3 from an assignment on: a solution for each alpha, and its score."""
    points = _C.find_convert_points(sim.graph, sim.placement)
    solutions = _C.reduce_convert_ops(problem, points, costs, start, ALPHAS)
    return _measure(solutions, evaluator, progress)


def _measure(
    solutions: Sequence[_C.ConvertSolution],
    evaluator: SimEvaluator,
    progress: Progress | None,
) -> list[MeasuredAlpha]:
    """The phase-2 score of each; equal assignments are evaluated once.

    Raises:
        RuntimeError: a score that is NaN.
    """
    measured: list[MeasuredAlpha] = []
    unknown = {
        tuple(solution.assignment)
        for solution in solutions
        if all(
            evaluator.known(phase, solution.assignment) is None
            for phase in ("front", "convert")
        )
    }
    total = len(unknown)
    for solution in solutions:
        if tuple(solution.assignment) in unknown and progress is not None:
            progress("convert", total - len(unknown), total)
        unknown.discard(tuple(solution.assignment))
        score = evaluator.evaluate("convert", solution.assignment)
        if math.isnan(score):
            raise RuntimeError(
                "mixed precision search: the phase-2 score must be a number, got nan "
                f"for alpha {solution.alpha} of phase 3"
            )
        measured.append(MeasuredAlpha(solution, score))
    return measured


def best_alpha(measured: Sequence[MeasuredAlpha], target: float) -> MeasuredAlpha:
    """The one within the target with the smallest sum of relative bit-ops and of
    convert cost as a share of alpha 1's: converting less is worth as much of the
    choice's convert cost as it adds to the bit-ops of the baseline, and no more.

    Alpha 1, the choice of phase 2, where none is within it.
    """
    chosen = next(item for item in measured if item.solution.alpha == 1)
    unit = chosen.solution.convert_cost or 1
    within = [item for item in measured if item.score >= target]
    if not within:
        return chosen
    return min(
        within,
        key=lambda item: (
            item.solution.relative_cost + item.solution.convert_cost / unit,
            -item.score,
            item.solution.alpha,
        ),
    )


def _status(point: AlphaPoint) -> str:
    if not point.within_budget:
        return "least possible"
    return "optimal" if point.gap == 0 else "bounded"


def write_alpha_files(
    folder: Path, alphas: Sequence[AlphaPoint], chosen: float | None
) -> None:
    """Writes `AMP_phase_3_data_alpha_<alpha>.json` for each; files of phase 3 that an
    earlier run left, its exports too, are about another result and go.

    Raises:
        OSError: the folder cannot be written.
    """
    for pattern in ("AMP_phase_3_data_alpha_*.json", "AMP_ph3_export_alpha_*"):
        for left in folder.glob(pattern):
            left.unlink()
    for point in alphas:
        document = {
            "alpha": point.alpha,
            "score": json_number(point.score),
            "convert_cost": point.convert_cost,
            "relative_bitops": point.cost,
            "status": _status(point),
            "gap": point.gap,
            "chosen": point.alpha == chosen,
            "assignment": [
                [[list(pair) for pair in group.to_list()], candidate_text(candidate)]
                for group, candidate in point.assignment.items()
            ],
        }
        path = folder / f"AMP_phase_3_data_alpha_{point.alpha}.json"
        atomic_write(path, json.dumps(document, indent=1) + "\n")


def export_alphas(
    sim: Simulation,
    folder: Path,
    measured: Sequence[MeasuredAlpha],
    evaluator: SimEvaluator,
) -> None:
    """Exports the simulation at each alpha as `AMP_ph3_export_alpha_<alpha>.*`.

    A model that cannot be exported does not lose the search: a warning says why.
    """
    for item in measured:
        evaluator.finish(item.solution.assignment)
        prefix = f"AMP_ph3_export_alpha_{item.solution.alpha}"
        try:
            sim.export(os.fspath(folder), prefix)
        except Exception as error:  # a failed export must not cost the results
            warnings.warn(
                f"phase 3: {prefix} could not be exported: {error}",
                RuntimeWarning,
                stacklevel=5,
            )
            return


def alpha_points(
    measured: Sequence[MeasuredAlpha],
    groups: Sequence[NamedGroup],
    candidates: Sequence[Any],
    memory_of: Callable[[Sequence[int]], dict[str, float]],
) -> list[AlphaPoint]:
    """As users see them; `memory_of` an assignment gives the fields of its bytes."""
    return [
        AlphaPoint(
            alpha=item.solution.alpha,
            score=item.score,
            convert_cost=item.solution.convert_cost,
            cost=item.solution.relative_cost,
            assignment={
                group: candidates[index]
                for group, index in zip(groups, item.solution.assignment, strict=True)
            },
            within_budget=item.solution.within_budget,
            gap=item.solution.gap,
            **memory_of(item.solution.assignment),
        )
        for item in measured
    ]
