# SPDX-License-Identifier: BSD-3-Clause
"""Greedy automatic mixed precision of a quantization simulation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aimetpp import _C
from aimetpp.amp.arguments import (
    ResultsFolderError,
    check_algo,
    check_drop,
    check_flag,
    check_sim,
    ensure_calibrated,
    prepare_folder,
    refuse_unavailable,
    warn_of_infinity,
)
from aimetpp.amp.cache import EvaluationCache
from aimetpp.amp.callbacks import check_callback
from aimetpp.amp.candidates import as_candidate, parse_candidates
from aimetpp.amp.convert_ops import (
    ALPHAS,
    MeasuredAlpha,
    alpha_points,
    best_alpha,
    export_alphas,
    measure_alphas,
    parse_convert_costs,
    write_alpha_files,
)
from aimetpp.amp.cost_table import parse_cost_table
from aimetpp.amp.evaluation import EvalCallbackFactory
from aimetpp.amp.evaluator import PHASES, SimEvaluator, SimState
from aimetpp.amp.metric_identity import metric_name
from aimetpp.amp.progress import Progress, progress_reporter
from aimetpp.amp.quantizer_groups import GroupMembers, build_members
from aimetpp.amp.report import write_pages
from aimetpp.amp.results import (
    ParetoList,
    ParetoPoint,
    SearchSummary,
    Sensitivity,
    info_list,
    with_phase3_points,
    write_json_files,
)
from aimetpp.amp.selection import select_groups, without_pinned
from aimetpp.amp.simulation import Simulation
from aimetpp.common.amp.utils import AMPSearchAlgo
from aimetpp.common.files import sole_user

__all__ = ["EvalCallbackFactory", "GreedyMixedPrecisionAlgo", "ResultsFolderError"]


class GreedyMixedPrecisionAlgo:
    """The search behind `choose_mixed_precision`, which documents the arguments.

    The constructor checks them all and evaluates nothing; `run` may be called
    again with another drop or algorithm, and reuses what was evaluated.

    Attributes:
        ENABLE_CONVERT_OP_REDUCTION: the default of `convert_op_reduction`.
        groups: the quantizer groups that are searched.
        result: the ParetoList of the last run, or None.
    """

    ENABLE_CONVERT_OP_REDUCTION = False

    def __init__(
        self,
        sim: Simulation,
        dummy_input: Any,
        candidates: Any,
        eval_callback_for_phase1: Callable[[Any], Any],
        eval_callback_for_phase2: Callable[[Any], Any],
        results_dir: str | os.PathLike[str] | None,
        clean_start: bool,
        forward_pass_callback: Callable[[Any], Any] | None,
        use_all_amp_candidates: bool = False,
        phase2_reverse: bool = False,
        phase1_optimize: bool = True,
        *,
        convert_op_reduction: bool | None = None,
        convert_costs: Any = None,
        cost_table: Any = None,
        include: Any = None,
        exclude: Any = None,
        progress: Any = None,
        max_evaluations: int | None = None,
        memory_budget: int | None = None,
    ) -> None:
        del dummy_input  # shapes and MACs are those that the simulation traced
        del phase1_optimize  # calibration is never repeated, so both are the same
        check_sim(sim)
        refuse_unavailable(
            max_evaluations=max_evaluations is not None,
            memory_budget=memory_budget is not None,
        )
        self._sim = sim
        if convert_op_reduction is None:
            convert_op_reduction = self.ENABLE_CONVERT_OP_REDUCTION
        self._reduce = check_flag(convert_op_reduction, "convert_op_reduction")
        if convert_costs is not None and not self._reduce:
            raise ValueError(
                "convert_costs has no effect without convert_op_reduction=True"
            )
        self._reverse = check_flag(phase2_reverse, "phase2_reverse")
        self._candidates = parse_candidates(candidates)
        self._convert_costs = parse_convert_costs(
            convert_costs, [activation for activation, _ in self._candidates]
        )
        cost_rows = None if cost_table is None else parse_cost_table(cost_table)
        self._callbacks = {
            "sensitivity": check_callback(
                eval_callback_for_phase1, PHASES["sensitivity"]
            ),
            "front": check_callback(eval_callback_for_phase2, PHASES["front"]),
            "convert": eval_callback_for_phase2,
        }
        if forward_pass_callback is not None:
            check_callback(forward_pass_callback, "forward_pass_callback")
        self._progress = progress
        progress_reporter(progress)  # its errors come now
        self._clean_start = check_flag(clean_start, "clean_start")
        self._members = without_pinned(
            sim, select_groups(sim, self._find_members(sim), include, exclude)
        )
        self._supported = self._supported_candidates(bool(use_all_amp_candidates))
        self._folder = None if results_dir is None else prepare_folder(results_dir)
        ensure_calibrated(sim, self._members, self._candidates, forward_pass_callback)
        self.groups = [members.group for members in self._members]
        self._searched = [q for members in self._members for q in members.quantizers]
        self._bit_ops = _C.build_cost_model(sim.graph, sim.placement)
        self._memory = _C.build_memory_model(sim.graph, sim.placement)
        self._cost_model = self._bit_ops
        if cost_rows is not None:
            self._cost_model = _C.build_table_cost_model(
                sim.graph, sim.placement, cost_rows
            )
        self.result: ParetoList | None = None

    def _find_members(self, sim: Simulation) -> list[GroupMembers]:
        return build_members(sim)

    def run(
        self,
        allowed_accuracy_drop: float | None,
        search_algo: AMPSearchAlgo = AMPSearchAlgo.Binary,
    ) -> ParetoList:
        """Searches, leaves the simulation at the chosen point, writes the files.

        Args:
            allowed_accuracy_drop: as in `choose_mixed_precision`.
            search_algo: as in `choose_mixed_precision`.

        Raises:
            TypeError: a drop that is not a number; a callback's result that is none.
            ValueError: an unknown algorithm; no candidate that all groups support.
            RuntimeError: a score that is NaN; the message names phase, group and
                candidate. Another run uses the results folder.
        """
        drop = check_drop(allowed_accuracy_drop)
        algo = check_algo(search_algo)
        if self._folder is None:
            return self._search(drop, algo, None)
        cache_folder = self._folder / ".cache"
        cache_folder.mkdir(exist_ok=True)
        with sole_user(cache_folder / "lock", f"results_dir {str(self._folder)!r}"):
            return self._search(drop, algo, cache_folder)

    def _search(
        self, drop: float | None, algo: AMPSearchAlgo, cache_folder: Path | None
    ) -> ParetoList:
        state = SimState(self._sim)
        try:
            fingerprint = {} if cache_folder is None else self._fingerprint(state)
            cache = EvaluationCache(cache_folder, fingerprint, self._clean_start)
            self._clean_start = False  # a second run goes on from the first
            evaluator = SimEvaluator(
                self._sim,
                state,
                self._members,
                self._candidates,
                self._callbacks,
                cache,
            )
            with progress_reporter(self._progress) as progress:
                problem = _C.SearchProblem(
                    self._candidates,
                    self._search_groups(),
                    self._cost_model,
                    state.precisions,
                )
                found = self._find(problem, drop, algo, evaluator, progress)
                alphas = self._reduce_convert_ops(problem, found, evaluator, progress)
            final = found.final_assignment
            best = best_alpha(alphas, found.target) if alphas else None
            if best is not None:
                final = best.solution.assignment
            evaluator.finish(final)
            result = self._collect(found, evaluator, alphas, best)
            warn_of_infinity(result, drop)
            if self._folder is not None:
                self._write(self._folder, result, found, evaluator, final)
            if alphas and self._folder is not None:
                export_alphas(self._sim, self._folder, alphas, evaluator)
                evaluator.finish(final)
        except BaseException:
            state.restore()
            raise
        self.result = result
        return result

    def _find(
        self,
        problem: _C.SearchProblem,
        drop: float | None,
        algo: AMPSearchAlgo,
        evaluator: SimEvaluator,
        progress: Progress | None,
    ) -> _C.SearchResult:
        """Phases 1 and 2; another search overrides this."""
        return _C.greedy_search(
            problem,
            drop,
            int(algo),
            self._reverse,
            evaluator.evaluate,
            progress,
            evaluator.known,
        )

    def _reduce_convert_ops(
        self,
        problem: _C.SearchProblem,
        found: _C.SearchResult,
        evaluator: SimEvaluator,
        progress: Progress | None,
    ) -> list[MeasuredAlpha]:
        """Phase 3, on what phase 2 has chosen."""
        if not self._reduce or found.stop_reason == "target_unreachable":
            return []
        solutions = _C.reduce_convert_ops(
            problem,
            _C.find_convert_points(self._sim.graph, self._sim.placement),
            self._convert_costs,
            found.final_assignment,
            ALPHAS,
        )
        return measure_alphas(solutions, evaluator, progress)

    def _supported_candidates(self, use_all: bool) -> list[list[int]]:
        graph, placement = self._sim.graph, self._sim.placement
        now = self._sim.precisions()
        pinned = {index: now[index] for index in self._sim.pinned_quantizers()}
        return [
            _C.supported_candidates(
                members.native, graph, placement, self._candidates, use_all, pinned
            )
            for members in self._members
        ]

    def _search_groups(self) -> list[dict[str, Any]]:
        return [
            {
                "name": str(members.group),
                "activation_quantizers": members.activation_quantizers,
                "param_quantizers": members.param_quantizers,
                "candidates": supported,
            }
            for members, supported in zip(self._members, self._supported, strict=True)
        ]

    def _fingerprint(self, state: SimState) -> dict[str, Any]:
        return {
            "model, weights, config or calibration": self._sim.fingerprint(),
            "candidates": self._candidates,
            "supported candidates": self._supported,
            "phase-1 metric": metric_name(self._callbacks["sensitivity"]),
            "phase-2 metric": metric_name(self._callbacks["front"]),
            "quantizer groups": [group.to_list() for group in self.groups],
            "precisions outside the groups": {
                str(index): precision
                for index, precision in enumerate(state.precisions)
                if index not in self._searched
            },
            "ranges set by hand": state.fingerprint(),
        }

    def _collect(
        self,
        found: _C.SearchResult,
        evaluator: SimEvaluator,
        measured: list[MeasuredAlpha],
        best: MeasuredAlpha | None,
    ) -> ParetoList:
        as_tuples = [as_candidate(candidate) for candidate in self._candidates]

        def memory_of(assignment: Sequence[int]) -> dict[str, float]:
            precisions = evaluator.precisions("front", list(assignment))
            return {
                "weight_bytes": self._memory.weight_bytes(precisions),
                "activation_bytes": self._memory.activation_bytes(precisions),
            }

        def point_of(point: _C.FrontPoint) -> ParetoPoint:
            step = point.group >= 0
            return ParetoPoint(
                cost=point.relative_bit_ops,
                score=point.score,
                assignment={
                    group: as_tuples[index]
                    for group, index in zip(self.groups, point.assignment, strict=True)
                },
                dominated=point.dominated,
                group=self.groups[point.group] if step else None,
                candidate=as_tuples[point.candidate] if step else None,
                **memory_of(point.assignment),
            )

        points = [point_of(point) for point in found.points]
        first_step = len(points) - len(found.walk)
        end_of_walk = len(points)
        alphas = alpha_points(measured, self.groups, as_tuples, memory_of)
        chosen = found.chosen
        if best is not None:
            points = with_phase3_points(points, alphas)
            final = alphas[measured.index(best)].assignment
            chosen = next(
                i for i, point in enumerate(points) if point.assignment == final
            )
        baseline = evaluator.precisions("front", found.points[0].assignment)
        return ParetoList(
            walk=points[first_step:end_of_walk],
            points=points,
            chosen=points[chosen] if chosen > 0 else None,
            alphas=alphas,
            sensitivities=[
                Sensitivity(
                    self.groups[item.group],
                    as_tuples[item.candidate],
                    item.score,
                    item.bit_ops_reduction,
                )
                for item in found.sensitivities
            ],
            summary=SearchSummary(
                fp32_score=found.fp32_score,
                baseline_score=found.baseline_score,
                final_score=found.final_score if best is None else best.score,
                baseline_candidate=as_tuples[found.baseline_candidate],
                baseline_bit_ops=self._bit_ops.bit_ops(baseline),
                baseline_cost=self._cost_model.cost(baseline),
                stop_reason=found.stop_reason,
                evaluations=evaluator.evaluations,
                seconds=evaluator.seconds,
                num_groups=len(self.groups),
                chosen_alpha=None if best is None else best.solution.alpha,
            ),
        )

    def _write(
        self,
        folder: Path,
        result: ParetoList,
        found: _C.SearchResult,
        evaluator: SimEvaluator,
        final_assignment: list[int],
    ) -> None:
        baseline = evaluator.precisions("front", found.points[0].assignment)
        final = evaluator.precisions("front", final_assignment)
        quantizers = self._sim.placement.quantizers
        info = info_list(
            result,
            before=[baseline[index] for index in self._searched],
            after=[final[index] for index in self._searched],
            kinds=[quantizers[index].kind for index in self._searched],
        )
        write_json_files(folder, result, info)
        write_alpha_files(folder, result.alphas, result.summary.chosen_alpha)
        write_pages(folder, result, self._sim)
