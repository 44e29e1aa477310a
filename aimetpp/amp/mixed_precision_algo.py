# SPDX-License-Identifier: BSD-3-Clause
"""Greedy automatic mixed precision of a quantization simulation."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aimetpp import _C
from aimetpp.amp.arguments import (
    ResultsFolderError,
    check_algo,
    check_distributed,
    check_drop,
    check_flag,
    check_max_evaluations,
    check_memory_budget,
    check_sim,
    ensure_calibrated,
    prepare_folder,
    warn_of_infinity,
)
from aimetpp.amp.cache import READ_VALUES, EvaluationCache
from aimetpp.amp.callbacks import check_callback
from aimetpp.amp.candidates import as_candidate, parse_candidates
from aimetpp.amp.collect import collect_result
from aimetpp.amp.convert_ops import (
    ALPHAS,
    MeasuredAlpha,
    best_alpha,
    export_alphas,
    parse_convert_costs,
    reduce_convert_ops,
)
from aimetpp.amp.cost_table import parse_cost_table
from aimetpp.amp.estimate import SearchEstimate, estimate_search
from aimetpp.amp.evaluation import EvalCallbackFactory
from aimetpp.amp.evaluator import PHASES, SimEvaluator, SimState
from aimetpp.amp.journal import open_journal
from aimetpp.amp.metric_identity import merged, metric_identity
from aimetpp.amp.progress import Progress, progress_reporter
from aimetpp.amp.quantizer_groups import build_members
from aimetpp.amp.result_files import write_results
from aimetpp.amp.results import ParetoList, SearchSummary
from aimetpp.amp.selection import (
    select_groups,
    supported_candidates,
    without_pinned,
)
from aimetpp.amp.simulation import Simulation
from aimetpp.common.amp.utils import AMPSearchAlgo
from aimetpp.common.inference import eval_mode
from aimetpp.common.shared_work import SharedWork, join_ranks

__all__ = ["EvalCallbackFactory", "GreedyMixedPrecisionAlgo", "ResultsFolderError"]


@dataclass(frozen=True)
class Session:
    """What one run works with, while the results folder is its own."""

    problem: _C.SearchProblem
    state: SimState
    evaluator: SimEvaluator
    progress: Progress | None
    work: SharedWork | None


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
        distributed: bool | None = None,
    ) -> None:
        del dummy_input  # shapes and MACs are those that the simulation traced
        del phase1_optimize  # calibration is never repeated, so both are the same
        check_sim(sim)
        self._memory_budget = check_memory_budget(memory_budget)
        self._sim = sim
        self._max_evaluations = check_max_evaluations(max_evaluations)
        self._distributed = check_distributed(distributed)
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
        self._estimate: SearchEstimate | None = None
        self._clean_start = check_flag(clean_start, "clean_start")
        self._members = without_pinned(
            sim, select_groups(sim, build_members(sim), include, exclude)
        )
        self._supported = supported_candidates(
            sim, self._members, self._candidates, bool(use_all_amp_candidates)
        )
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
                candidate. Another run uses the results folder. Ranks search with
                different models or arguments.
        """
        drop = check_drop(allowed_accuracy_drop)
        options = self._options(drop, search_algo)
        with self._session() as session:
            return self._search(drop, options, session)

    def estimate(
        self,
        allowed_accuracy_drop: float | None,
        search_algo: AMPSearchAlgo = AMPSearchAlgo.Binary,
    ) -> SearchEstimate:
        """Evaluations, time and memory of `run` with these arguments, by phase.

        Evaluates a few settings, whose scores are in the results folder then; a `run`
        that follows does not evaluate them again, and its progress bar shows the
        estimate beside the time that has passed. The simulation is left as it was.

        Args:
            allowed_accuracy_drop: as in `run`.
            search_algo: as in `run`.

        Raises:
            Exception: as `run`.
        """
        drop = check_drop(allowed_accuracy_drop)
        options = self._options(drop, search_algo)
        with self._session() as session:
            self._estimate = estimate_search(
                session.problem,
                options,
                session.evaluator,
                len(ALPHAS) - 1 if self._reduce else 0,
                profile=drop is None,
            )
            session.state.restore()
        return self._estimate

    def _options(
        self, drop: float | None, search_algo: AMPSearchAlgo
    ) -> _C.SearchOptions:
        return _C.SearchOptions(
            drop, int(check_algo(search_algo)), self._reverse, self._max_evaluations
        )

    def _estimated_seconds(self) -> dict[str, float] | None:
        return self._estimate.seconds_most if self._estimate else None

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        """The results folder is this search's, the simulation put back at an error."""
        # Without a folder there is no journal to share, and each rank searches alone.
        shares = self._distributed and self._folder is not None
        work = join_ranks("amp") if shares else None
        state = SimState(self._sim)
        try:
            with (
                eval_mode(self._sim.model),  # once, and not around each evaluation
                self._open_scores(state, work) as cache,
                self._sim.replaying(self._memory_budget) as replay,
                progress_reporter(
                    self._progress,
                    self._estimated_seconds(),
                    bars=work is None or work.rank == 0,
                ) as progress,
            ):
                self._clean_start = False  # what follows goes on from this one
                problem = _C.SearchProblem(
                    self._candidates,
                    self._search_groups(),
                    self._cost_model,
                    state.precisions,
                )
                evaluator = SimEvaluator(
                    self._sim,
                    state,
                    self._members,
                    self._candidates,
                    self._callbacks,
                    cache,
                    replay,
                    work,
                    progress,
                )
                yield Session(problem, state, evaluator, progress, work)
        except BaseException:
            state.restore()
            raise

    def _open_scores(
        self, state: SimState, work: SharedWork | None
    ) -> contextlib.AbstractContextManager[EvaluationCache]:
        if self._folder is None:
            return contextlib.nullcontext(EvaluationCache(None, {}, True))
        return open_journal(
            self._folder, self._fingerprint(state), self._clean_start, work
        )

    def _search(
        self, drop: float | None, options: _C.SearchOptions, session: Session
    ) -> ParetoList:
        problem, evaluator = session.problem, session.evaluator
        found = self._find(drop, options, session)
        alphas = []
        may_reduce = self._searched and found.stop_reason != "target_unreachable"
        if self._reduce and may_reduce:
            alphas = reduce_convert_ops(
                self._sim,
                problem,
                self._convert_costs,
                found.final_assignment,
                evaluator,
                session.progress,
            )
        best = best_alpha(alphas, found.target) if alphas else None
        final = best.solution.assignment if best else found.final_assignment
        evaluator.finish(final)
        result = self._collect(found, evaluator, alphas, best, problem, options)
        warn_of_infinity(result, drop)

        def write() -> str:
            if self._folder is None:
                return "nothing to write"
            stages = {
                "baseline": found.points[0].assignment,
                "walk": found.final_assignment,
                "final": final,
            }
            settings = {k: evaluator.precisions("front", a) for k, a in stages.items()}
            write_results(self._folder, result, self._sim, self._searched, settings)
            if alphas:
                export_alphas(self._sim, self._folder, alphas, evaluator)
                evaluator.finish(final)
            return "written"

        write() if session.work is None else session.work.obtain("files", write)
        self.result = result
        return result

    def _find(
        self, drop: float | None, options: _C.SearchOptions, session: Session
    ) -> _C.SearchResult:
        """Phases 1 and 2; another search overrides this."""
        del drop  # `options` has it
        return _C.greedy_search(
            session.problem,
            options,
            session.evaluator.evaluate,
            session.progress,
            session.evaluator.known,
            session.evaluator.prepare,
            session.evaluator.metric_names,
        )

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
        first, second = map(
            metric_identity, (self._callbacks["sensitivity"], self._callbacks["front"])
        )
        return {
            "model, weights, config or calibration": self._sim.fingerprint(),
            "candidates": self._candidates,
            "supported candidates": self._supported,
            "phase-1 metric": first.name,
            "phase-2 metric": second.name,
            READ_VALUES: merged(first.values, second.values),
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
        problem: _C.SearchProblem,
        options: _C.SearchOptions,
    ) -> ParetoList:
        def memory_of(assignment: Sequence[int]) -> dict[str, float]:
            precisions = evaluator.precisions("front", list(assignment))
            return {
                "weight_bytes": self._memory.weight_bytes(precisions),
                "activation_bytes": self._memory.activation_bytes(precisions),
            }

        baseline = evaluator.precisions("front", found.points[0].assignment)
        reference = _C.count_reference_evaluations(problem, options)
        return collect_result(
            found,
            self.groups,
            [as_candidate(candidate) for candidate in self._candidates],
            memory_of,
            measured,
            best,
            SearchSummary(
                baseline_bit_ops=self._bit_ops.bit_ops(baseline),
                baseline_cost=self._cost_model.cost(baseline),
                evaluations=evaluator.evaluations,
                reference_evaluations={p: most for p, (_, most) in reference.items()},
                seconds=evaluator.seconds,
                estimated_seconds=self._estimated_seconds(),
                num_ranks=evaluator.num_ranks,
                num_groups=sum(bool(members.quantizers) for members in self._members),
            ),
        )
