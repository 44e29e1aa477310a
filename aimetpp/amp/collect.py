# SPDX-License-Identifier: BSD-3-Clause
"""From what the engine found to what users see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from aimetpp import _C
from aimetpp.amp.convert_ops import MeasuredAlpha, alpha_points
from aimetpp.amp.quantizer_groups import NamedGroup
from aimetpp.amp.results import (
    ParetoList,
    ParetoPoint,
    SearchSummary,
    Sensitivity,
    SkippedPoint,
    with_phase3_points,
)

MemoryOf = Callable[[Sequence[int]], dict[str, float]]


def collect_result(
    found: _C.SearchResult,
    groups: Sequence[NamedGroup],
    candidates: Sequence[Any],
    memory_of: MemoryOf,
    measured: Sequence[MeasuredAlpha],
    best: MeasuredAlpha | None,
    summary: SearchSummary,
) -> ParetoList:
    """The result of a search.

    Args:
        found: by the engine.
        groups: those searched.
        candidates: as tuples.
        memory_of: the fields of a point's bytes, by assignment.
        measured: the solutions of phase 3.
        best: the one of them that is chosen.
        summary: of the search; its scores and what phase 3 has chosen are set here.
    """
    points = [_point(point, groups, candidates, memory_of) for point in found.points]
    first_step, end_of_walk = len(points) - len(found.walk), len(points)
    alphas = alpha_points(measured, groups, candidates, memory_of)
    chosen = found.chosen
    if best is not None:
        points = with_phase3_points(points, alphas)
        final = alphas[measured.index(best)].assignment
        chosen = next(i for i, point in enumerate(points) if point.assignment == final)
    return ParetoList(
        walk=points[first_step:end_of_walk],
        points=points,
        chosen=points[chosen] if chosen > 0 else None,
        alphas=alphas,
        sensitivities=[
            Sensitivity(
                groups[item.group],
                candidates[item.candidate],
                item.score,
                item.bit_ops_reduction,
            )
            for item in found.sensitivities
        ],
        skipped=[
            SkippedPoint(
                item.relative_bit_ops,
                groups[item.group],
                candidates[item.candidate],
                item.lowest,
                item.highest,
            )
            for item in found.skipped
        ],
        summary=replace(
            summary,
            fp32_score=found.fp32_score,
            baseline_score=found.baseline_score,
            final_score=found.final_score if best is None else best.score,
            baseline_candidate=candidates[found.baseline_candidate],
            stop_reason=found.stop_reason,
            chosen_alpha=None if best is None else best.solution.alpha,
        ),
    )


def _point(
    point: _C.FrontPoint,
    groups: Sequence[NamedGroup],
    candidates: Sequence[Any],
    memory_of: MemoryOf,
) -> ParetoPoint:
    step = point.group >= 0
    return ParetoPoint(
        cost=point.relative_bit_ops,
        score=point.score,
        assignment={
            group: candidates[index]
            for group, index in zip(groups, point.assignment, strict=True)
        },
        dominated=point.dominated,
        group=groups[point.group] if step else None,
        candidate=candidates[point.candidate] if step else None,
        **memory_of(point.assignment),
    )
