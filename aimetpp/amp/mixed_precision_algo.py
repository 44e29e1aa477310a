# SPDX-License-Identifier: BSD-3-Clause
"""Greedy automatic mixed precision of a quantization simulation."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aimetpp import _C
from aimetpp.amp.cache import EvaluationCache
from aimetpp.amp.callbacks import check_callback
from aimetpp.amp.candidates import as_candidate, parse_candidates
from aimetpp.amp.evaluation import EvalCallbackFactory
from aimetpp.amp.evaluator import PHASES, SimEvaluator, SimState
from aimetpp.amp.metric_identity import metric_name
from aimetpp.amp.progress import progress_reporter
from aimetpp.amp.quantizer_groups import GroupMembers, build_members
from aimetpp.amp.report import write_pages
from aimetpp.amp.results import (
    ParetoList,
    ParetoPoint,
    SearchSummary,
    Sensitivity,
    info_list,
    write_json_files,
)
from aimetpp.amp.selection import select_groups
from aimetpp.amp.simulation import Simulation
from aimetpp.common.amp.utils import AMPSearchAlgo
from aimetpp.common.files import make_writable_folder, sole_user
from aimetpp.common.text import shortened

__all__ = ["EvalCallbackFactory", "GreedyMixedPrecisionAlgo", "ResultsFolderError"]


class ResultsFolderError(OSError, ValueError):
    """`results_dir` cannot be made or written."""


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
        results_dir: str | os.PathLike[str],
        clean_start: bool,
        forward_pass_callback: Callable[[Any], Any] | None,
        use_all_amp_candidates: bool = False,
        phase2_reverse: bool = False,
        phase1_optimize: bool = True,
        *,
        convert_op_reduction: bool | None = None,
        include: Any = None,
        exclude: Any = None,
        progress: Any = None,
        max_evaluations: int | None = None,
        memory_budget: int | None = None,
    ) -> None:
        del dummy_input  # shapes and MACs are those that the simulation traced
        del phase1_optimize  # calibration is never repeated, so both are the same
        _check_sim(sim)
        if convert_op_reduction is None:
            convert_op_reduction = self.ENABLE_CONVERT_OP_REDUCTION
        _refuse_unavailable(
            convert_op_reduction=convert_op_reduction,
            max_evaluations=max_evaluations is not None,
            memory_budget=memory_budget is not None,
        )
        self._sim = sim
        self._reverse = _check_flag(phase2_reverse, "phase2_reverse")
        self._candidates = parse_candidates(candidates)
        self._callbacks = {
            "sensitivity": check_callback(
                eval_callback_for_phase1, PHASES["sensitivity"]
            ),
            "front": check_callback(eval_callback_for_phase2, PHASES["front"]),
        }
        if forward_pass_callback is not None:
            check_callback(forward_pass_callback, "forward_pass_callback")
        self._progress = progress
        progress_reporter(progress)  # its errors come now
        self._clean_start = _check_flag(clean_start, "clean_start")
        self._members = select_groups(sim, build_members(sim), include, exclude)
        self._supported = self._supported_candidates(bool(use_all_amp_candidates))
        self._folder = _prepare_folder(results_dir)
        _ensure_calibrated(sim, self._members, self._candidates, forward_pass_callback)
        self.groups = [members.group for members in self._members]
        self._searched = [q for members in self._members for q in members.quantizers]
        self._cost_model = _C.build_cost_model(sim.graph, sim.placement)
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
                candidate. Another run uses the results folder.
        """
        drop = _check_drop(allowed_accuracy_drop)
        algo = _check_algo(search_algo)
        cache_folder = self._folder / ".cache"
        cache_folder.mkdir(exist_ok=True)
        with sole_user(cache_folder / "lock", f"results_dir {str(self._folder)!r}"):
            return self._search(drop, algo, cache_folder)

    def _search(
        self, drop: float | None, algo: AMPSearchAlgo, cache_folder: Path
    ) -> ParetoList:
        state = SimState(self._sim)
        cache = EvaluationCache(
            cache_folder, self._fingerprint(state), self._clean_start
        )
        self._clean_start = False  # a second run goes on from the first
        evaluator = SimEvaluator(
            self._sim, state, self._members, self._candidates, self._callbacks, cache
        )
        try:
            with progress_reporter(self._progress) as progress:
                found = _C.greedy_search(
                    self._candidates,
                    self._search_groups(),
                    self._cost_model,
                    state.precisions,
                    drop,
                    int(algo),
                    self._reverse,
                    evaluator.evaluate,
                    progress,
                    evaluator.known,
                )
            evaluator.finish(found.final_assignment)
            result = self._collect(found, evaluator)
            _warn_of_infinity(result, drop)
            self._write(result, found, evaluator)
        except BaseException:
            state.restore()
            raise
        self.result = result
        return result

    def _supported_candidates(self, use_all: bool) -> list[list[int]]:
        graph, placement = self._sim.graph, self._sim.placement
        return [
            _C.supported_candidates(
                members.native, graph, placement, self._candidates, use_all
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

    def _collect(self, found: _C.SearchResult, evaluator: SimEvaluator) -> ParetoList:
        as_tuples = [as_candidate(candidate) for candidate in self._candidates]

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
            )

        points = [point_of(point) for point in found.points]
        baseline = evaluator.precisions("front", found.points[0].assignment)
        return ParetoList(
            walk=points[len(points) - len(found.walk) :],
            points=points,
            chosen=points[found.chosen] if found.chosen >= 0 else None,
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
                final_score=found.final_score,
                baseline_candidate=as_tuples[found.baseline_candidate],
                baseline_bit_ops=self._cost_model.bit_ops(baseline),
                stop_reason=found.stop_reason,
                evaluations=evaluator.evaluations,
                seconds=evaluator.seconds,
                num_groups=len(self.groups),
            ),
        )

    def _write(
        self, result: ParetoList, found: _C.SearchResult, evaluator: SimEvaluator
    ) -> None:
        baseline = evaluator.precisions("front", found.points[0].assignment)
        final = evaluator.precisions("front", found.final_assignment)
        quantizers = self._sim.placement.quantizers
        info = info_list(
            result,
            before=[baseline[index] for index in self._searched],
            after=[final[index] for index in self._searched],
            kinds=[quantizers[index].kind for index in self._searched],
        )
        write_json_files(self._folder, result, info)
        write_pages(self._folder, result)


def _check_sim(sim: Any) -> None:
    if not isinstance(sim, Simulation):
        raise TypeError(f"sim must be a QuantizationSimModel, got {type(sim).__name__}")


def _refuse_unavailable(**asked: bool) -> None:
    for name, wanted in asked.items():
        if wanted:
            hint = ""
            if name == "convert_op_reduction":
                hint = (
                    " (also not through "
                    "GreedyMixedPrecisionAlgo.ENABLE_CONVERT_OP_REDUCTION)"
                )
            raise ValueError(
                f"{name} is not available in this version{hint}; leave it at its "
                "default"
            )


def _check_flag(value: Any, argument: str) -> bool:
    if value not in (True, False):
        raise TypeError(f"{argument} must be True or False, got {value!r}")
    return bool(value)


def _check_drop(drop: Any) -> float | None:
    if drop is None:
        return None
    if isinstance(drop, bool | str | bytes):
        raise TypeError(
            f"allowed_accuracy_drop must be a number or None, got {type(drop).__name__}"
        )
    try:
        value = float(drop)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"allowed_accuracy_drop must be a number or None, got {type(drop).__name__}"
        ) from error
    if math.isnan(value):
        raise ValueError("allowed_accuracy_drop must be a number or None, got nan")
    return value


def _check_algo(algo: Any) -> AMPSearchAlgo:
    try:
        return AMPSearchAlgo(algo)
    except ValueError as error:
        raise ValueError(
            "amp_search_algo must be AMPSearchAlgo.BruteForce, .Interpolation or "
            f".Binary, got {algo!r}"
        ) from error


def _prepare_folder(results_dir: Any) -> Path:
    if not isinstance(results_dir, str | os.PathLike):
        raise TypeError(f"results_dir must be a path, got {type(results_dir).__name__}")
    folder = Path(results_dir)
    try:
        make_writable_folder(folder)
    except OSError as error:
        raise ResultsFolderError(
            f"results_dir {os.fspath(results_dir)!r} must be a folder that can be "
            f"written, got: {error.strerror}"
        ) from error
    return folder


def _ensure_calibrated(
    sim: Simulation,
    members: list[GroupMembers],
    candidates: list[tuple[str, str]],
    forward_pass: Callable[[Any], Any] | None,
) -> None:
    """Makes sure that every quantizer has a range at the integer candidates too.

    Raises:
        RuntimeError: quantizers without one remain; the message names them.
    """
    state = SimState(sim)
    calibrated_now = False
    wanted = list(state.precisions)
    for half, attribute in enumerate(("activation_quantizers", "param_quantizers")):
        integer = [c[half] for c in candidates if c[half].startswith("int")]
        if not integer:
            continue
        for group in members:
            for index in getattr(group, attribute):
                if not wanted[index].startswith("int"):
                    wanted[index] = integer[0]
    try:
        state.apply(wanted)
        if sim.uncalibrated() and forward_pass is not None:
            sim.compute_encodings(forward_pass)
            calibrated_now = True
        missing = sim.uncalibrated()
    except BaseException:
        state.restore()
        raise
    if calibrated_now and not missing:
        sim.apply_precisions(state.precisions)
    else:
        state.restore()
    if missing:
        raise RuntimeError(
            "automatic mixed precision needs a calibrated simulation: call "
            "sim.compute_encodings first, or give a forward_pass_callback that reaches "
            f"these {len(missing)} quantizers: {shortened(missing)}"
        )


def _warn_of_infinity(result: ParetoList, drop: float | None) -> None:
    if drop is not None and math.isinf(result.fp32_score) and math.isfinite(drop):
        warnings.warn(
            f"the phase-2 metric scores full precision as {result.fp32_score}, so "
            f"that no finite score is within allowed_accuracy_drop={drop}: use a "
            "metric that is finite there, or None",
            RuntimeWarning,
            stacklevel=4,
        )
