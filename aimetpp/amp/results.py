# SPDX-License-Identifier: BSD-3-Clause
"""What a mixed-precision search found: objects, text tables, JSON files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aimetpp.amp.candidates import candidate_text
from aimetpp.amp.quantizer_groups import NamedGroup
from aimetpp.common.text import distinct_numbers


@dataclass(frozen=True)
class ParetoPoint:
    """One evaluated setting of the whole model.

    Attributes:
        cost: bit-ops (or the user's cost) relative to the baseline's, at most 1.
        score: of the phase-2 callback.
        assignment: the candidate of each group.
        dominated: another point is at least as cheap and as good, and better in one.
        group: the group that this step of the walk moved; None for the baseline, for
            the point with every group at its narrowest, where that is no step, and
            for points of phase 3.
        candidate: to which it was moved.
        weight_bytes: of all parameters; those that are not quantized have 4 bytes.
        activation_bytes: per sample, of quantized activations written and read.
    """

    cost: float
    score: float
    assignment: Mapping[NamedGroup, Any]
    dominated: bool
    group: NamedGroup | None = None
    candidate: Any = None
    weight_bytes: float = 0.0
    activation_bytes: float = 0.0


@dataclass(frozen=True)
class AlphaPoint:
    """One solution of phase 3.

    Attributes:
        alpha: share of phase 2's convert cost that was allowed.
        score: of the phase-2 callback.
        convert_cost: of its convert ops, per sample.
        cost: bit-ops relative to the baseline's.
        assignment: the candidate of each group.
        within_budget: False where no setting converts so little; this one then
            converts least.
        gap: proven: no setting within the budget has bit-ops (relative to the
            baseline's) that are lower by more than this; 0 is optimal.
        weight_bytes, activation_bytes: as in ParetoPoint.
    """

    alpha: float
    score: float
    convert_cost: float
    cost: float
    assignment: Mapping[NamedGroup, Any]
    within_budget: bool = True
    gap: float = 0.0
    weight_bytes: float = 0.0
    activation_bytes: float = 0.0


@dataclass(frozen=True)
class Sensitivity:
    """The phase-1 score with one group at a candidate and all else off.

    Attributes:
        group: the group.
        candidate: its candidate.
        score: of the phase-1 callback.
        bit_ops_reduction: bit-ops per sample (or the user's cost) that this saves
            against the baseline.
    """

    group: NamedGroup
    candidate: Any
    score: float
    bit_ops_reduction: float


@dataclass(frozen=True)
class SkippedPoint:
    """A step of the walk that was not evaluated.

    Attributes:
        cost: as in ParetoPoint.
        group: the group that the step would have moved.
        candidate: to which.
        lowest: score of the nearest evaluated point on the narrower side; -inf
            without one.
        highest: on the wider side. Where the score falls along the walk, that of this
            step lies between the two.
    """

    cost: float
    group: NamedGroup
    candidate: Any
    lowest: float
    highest: float


@dataclass(frozen=True)
class SearchSummary:
    """Numbers of a search that its list does not hold.

    Attributes:
        fp32_score: with every quantizer off.
        baseline_score: with every group at the baseline candidate.
        final_score: of the setting that the sim is left in.
        baseline_candidate: the widest that all groups support.
        baseline_bit_ops: absolute, per sample.
        baseline_cost: the same, or in units of the user's cost table.
        stop_reason: "complete", "target_met_by_all_narrow", "target_unreachable" or
            "nothing_to_narrow".
        evaluations: calls of the callbacks, by phase, on all ranks.
        reference_evaluations: by phase, how many AIMET's search makes at most for the
            same question.
        seconds: spent in the callbacks, by phase, on all ranks.
        estimated_seconds: by phase, at most, of `estimate`; None without one.
        num_ranks: processes that shared the evaluations.
        num_groups: groups searched.
        chosen_alpha: of phase 3; None without it.
    """

    fp32_score: float = math.nan
    baseline_score: float = math.nan
    final_score: float = math.nan
    baseline_candidate: Any = None
    baseline_bit_ops: float = 0.0
    stop_reason: str = ""
    evaluations: dict[str, int] = field(default_factory=dict)
    reference_evaluations: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    estimated_seconds: dict[str, float] | None = None
    num_ranks: int = 1
    num_groups: int = 0
    baseline_cost: float = 0.0
    chosen_alpha: float | None = None


class ParetoList(list[tuple[float, float, NamedGroup, Any]]):
    """The evaluated points of the walk, in its order; the baseline is not one.

    Each is a tuple (relative bit-ops, score, NamedGroup, candidate).

    Attributes:
        points: every evaluated ParetoPoint: the baseline first, then the walk, then
            what only phase 3 has evaluated.
        chosen: the point that the sim was left at, or None: at the baseline. The
            cheapest evaluated one within the allowed drop; without an allowed drop
            the cheapest of all. With phase 3, its choice.
        sensitivities: of phase 1, the least sensitive first; empty where the search
            ended before it.
        skipped: the SkippedPoints of the walk, in its order.
        summary: the numbers below and a few more.
        fp32_score, baseline_score, final_score, evaluations, stop_reason: as in
            SearchSummary; `evaluations` is the sum over the phases.
        narrowed: what the sim was left with, where it is not the baseline.
        alphas: the AlphaPoints of phase 3, alpha ascending; empty where it was not
            asked for, where the search ended with "target_unreachable", and where
            everything is pinned.
    """

    def __init__(
        self,
        walk: Sequence[ParetoPoint],
        points: Sequence[ParetoPoint],
        chosen: ParetoPoint | None,
        sensitivities: Sequence[Sensitivity],
        summary: SearchSummary,
        alphas: Sequence[AlphaPoint] = (),
        skipped: Sequence[SkippedPoint] = (),
    ) -> None:
        super().__init__(
            (point.cost, point.score, point.group, point.candidate)
            for point in walk
            if point.group is not None
        )
        self.points = list(points)
        self.chosen = chosen
        self.sensitivities = list(sensitivities)
        self.summary = summary
        self.alphas = list(alphas)
        self.skipped = list(skipped)

    @property
    def narrowed(self) -> list[tuple[NamedGroup, Any]]:
        """(group, candidate) of every group that the sim was left with at another
        candidate than the baseline's, in graph order; also where the search ended
        before any walk. What is pinned in a group (`sim.pin`) is at its own precision.
        """
        if self.chosen is None:
            return []
        baseline = self.points[0].assignment
        return [
            (group, candidate)
            for group, candidate in self.chosen.assignment.items()
            if candidate != baseline[group]
        ]

    @property
    def fp32_score(self) -> float:
        """Score with every quantizer off."""
        return self.summary.fp32_score

    @property
    def baseline_score(self) -> float:
        """Score at the baseline candidate."""
        return self.summary.baseline_score

    @property
    def final_score(self) -> float:
        """Score of the setting that the sim is left in."""
        return self.summary.final_score

    @property
    def evaluations(self) -> int:
        """How often a callback was called."""
        return sum(self.summary.evaluations.values())

    @property
    def stop_reason(self) -> str:
        """Why the search ended."""
        return self.summary.stop_reason


def point_name(point: ParetoPoint, result: ParetoList) -> str:
    """The group that a point narrowed, or what else it is."""
    if point.group is not None:
        return str(point.group)
    if point is result.points[0]:
        return "baseline"
    for alpha in result.alphas:
        if alpha.assignment == point.assignment:
            return f"phase 3, alpha {alpha.alpha}"
    return "every group at its narrowest"


def point_candidate(point: ParetoPoint, result: ParetoList) -> str:
    """To which candidate; empty where groups differ."""
    if point is result.points[0]:
        return candidate_text(result.summary.baseline_candidate)
    return candidate_text(point.candidate) if point.candidate is not None else ""


def format_pareto_table(result: ParetoList) -> str:
    """The evaluated points as text: cost, score, memory, what the step moved.

    Memory is in bytes: of the parameters, and of the activations of a sample that are
    written and read. "*" marks the chosen point, "d" dominated ones.
    """
    points = result.points
    full, *scores = distinct_numbers([result.fp32_score, *(p.score for p in points)])
    costs = distinct_numbers([point.cost for point in points])
    rows = [["", "cost", "score", "weights", "activations", "group", "candidate"]]
    for point, cost, score in zip(points, costs, scores, strict=True):
        chosen = point is (result.chosen or points[0])
        rows.append(
            [
                ("*" if chosen else " ") + ("d" if point.dominated else " "),
                cost,
                score,
                f"{point.weight_bytes:,.0f}",
                f"{point.activation_bytes:,.0f}",
                point_name(point, result),
                point_candidate(point, result),
            ]
        )
    lines = _aligned(rows, "<>>>><<")
    if result.skipped:
        lines.append(f"   {len(result.skipped)} points of the walk were not evaluated")
    lines.append(
        f"* chosen, d dominated; full precision scores {full}; "
        f"{result.stop_reason}; {result.evaluations} evaluations "
        f"(AIMET: up to {sum(result.summary.reference_evaluations.values())})"
    )
    return "\n".join(lines)


def format_alpha_table(result: ParetoList) -> str:
    """Phase 3 as text; "*" marks the chosen alpha."""
    scores = distinct_numbers([point.score for point in result.alphas])
    costs = distinct_numbers([point.cost for point in result.alphas])
    rows = [["", "alpha", "score", "convert cost", "bit-ops"]]
    for point, score, cost in zip(result.alphas, scores, costs, strict=True):
        mark = "*" if point.alpha == result.summary.chosen_alpha else ""
        convert_cost = f"{point.convert_cost:,.0f}"
        rows.append([mark, f"{point.alpha:.1f}", score, convert_cost, cost])
    return "\n".join(_aligned(rows, "<>>>>"))


def _aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Lines of columns; `sides` says by "<" or ">" where each one's text is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:{side}{width}}"
            for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def with_phase3_points(
    points: Sequence[ParetoPoint], alphas: Sequence[AlphaPoint]
) -> list[ParetoPoint]:
    """The points of phases 1 and 2 and those that only phase 3 has evaluated."""
    found = list(points)
    for alpha in alphas:
        if all(point.assignment != alpha.assignment for point in found):
            found.append(
                ParetoPoint(
                    alpha.cost,
                    alpha.score,
                    alpha.assignment,
                    dominated=False,
                    weight_bytes=alpha.weight_bytes,
                    activation_bytes=alpha.activation_bytes,
                )
            )
    return [
        replace(
            point,
            dominated=any(
                other.cost <= point.cost
                and other.score >= point.score
                and (other.cost, other.score) != (point.cost, point.score)
                for other in found
            ),
        )
        for point in found
    ]


def format_sensitivity_table(result: ParetoList) -> str:
    """Phase 1 as text, the least sensitive first."""
    if not result.sensitivities:
        return f"no sensitivities: {result.stop_reason}"
    items, base = result.sensitivities, result.summary.baseline_cost
    rows = [["score", "bit-ops saved", "group", "candidate"]]
    for item, score in zip(
        items, distinct_numbers([item.score for item in items]), strict=True
    ):
        share = item.bit_ops_reduction / base if base else 0
        candidate = candidate_text(item.candidate)
        rows.append([score, f"{share:.2%}", str(item.group), candidate])
    return "\n".join(_aligned(rows, ">><<"))
