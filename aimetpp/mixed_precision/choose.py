# SPDX-License-Identifier: BSD-3-Clause
"""Automatic mixed precision in one call."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from aimetpp.amp.arguments import load_data
from aimetpp.amp.estimate import SearchEstimate
from aimetpp.amp.mixed_precision_algo import (
    EvalCallbackFactory,
    GreedyMixedPrecisionAlgo,
)
from aimetpp.amp.results import ParetoList
from aimetpp.common.amp.utils import AMPSearchAlgo


def choose_mixed_precision(
    sim: Any,
    dummy_input: Any,
    candidates: Any,
    eval_callback_for_phase1: Callable[[Any], Any],
    eval_callback_for_phase2: Callable[[Any], Any],
    allowed_accuracy_drop: float | None,
    results_dir: str | os.PathLike[str],
    clean_start: bool,
    forward_pass_callback: Callable[[Any], Any] | None,
    use_all_amp_candidates: bool = False,
    phase2_reverse: bool = False,
    phase1_optimize: bool = True,
    amp_search_algo: AMPSearchAlgo = AMPSearchAlgo.Binary,
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
) -> ParetoList:
    """Finds the cheapest precision of each quantizer group within an accuracy drop.

    Phase 1 scores every group alone at every candidate. Phase 2 starts with all
    groups at the baseline, the widest candidate that every group supports, and
    narrows them one after the other, the least sensitive first. The cheapest point
    on the way whose score is within the drop is chosen, and the simulation is left
    there. Cost is bit-ops, MACs x activation bits x parameter bits, or
    `cost_table`.

    Source: AIMET's guide to automatic mixed precision.

    Args:
        sim: a calibrated QuantizationSimModel; changed in place. Pinned quantizers
            (`sim.pinned_sites()`), such as those that manual mixed precision set, keep
            their precision.
        dummy_input: accepted for compatibility; the simulation knows its shapes from
            its own dummy input.
        candidates: list of ((activation bitwidth, dtype), (param bitwidth, dtype)).
        eval_callback_for_phase1: a CallbackFunc or a callable of the model, which
            returns a score, higher is better. Called in eval mode without gradients.
        eval_callback_for_phase2: the same; the metric that counts.
        allowed_accuracy_drop: largest drop of the phase-2 score from full precision,
            in its units. None: the whole profile is evaluated, and the cheapest point
            is chosen; look at the curve, and call again with a drop.
        results_dir: folder for `pareto_list.json`, `pareto_curve.html`,
            `quantizer_group_sensitivity.html`, `report.html`, `report.json`,
            `amp_info_list.json` and the cache.
        clean_start: forget what an earlier run left in the cache. Otherwise its
            scores are used; where model, weights, config, calibration, candidates or
            metric have changed, a warning says so and the search starts clean. Of a
            metric its code, arguments and data are compared, not the files it reads.
        forward_pass_callback: calibrates the simulation where it is not calibrated;
            a calibrated one is never calibrated again, as every bit-width's ranges
            come from the statistics that it keeps.
        use_all_amp_candidates: ignore the config's supported_kernels.
        phase2_reverse: walk from the narrowest setting upwards and raise groups, the
            most sensitive first, until the target holds. The points are the same;
            with BruteForce fewer are evaluated where the target is near the narrow
            end. The list then begins with every group at its narrowest.
        phase1_optimize: accepted for compatibility; both values give the same, since
            nothing is calibrated again.
        amp_search_algo: how phase 2 looks for the point.
        convert_op_reduction: phase 3: from the chosen point on, widen groups so that
            fewer convert ops are needed between neighbours of different precision.
            For each alpha of 0, 0.2, ... 1 the setting of least bit-ops whose convert
            ops cost at most alpha times those of the chosen point is found and
            evaluated; the simulation is left at the one within the drop with the
            smallest sum of relative bit-ops and share of the choice's convert cost.
            None is GreedyMixedPrecisionAlgo.ENABLE_CONVERT_OP_REDUCTION. Writes
            `AMP_phase_3_data_alpha_<alpha>.json` and an export of each.
        convert_costs: cost of converting one element, a dict {(from, to): cost} with
            precisions such as "int8"; None: the bytes that the convert op reads and
            writes.
        cost_table: what counts in place of bit-ops, such as measured latencies: a dict
            {(op, activation, param): cost} with an op's name ("conv1"), ONNX type
            ("Conv") or kind, precisions such as "int8", and None as the param of an op
            without a weight. Every op that multiplies needs a cost for each pair of
            precisions that the search may give it; other ops may be left out.
        include: search only groups with a quantizer in these modules, names, globs or
            QuantizerGroups.
        exclude: leave these out; they keep their precision.
        progress: None shows a bar on a terminal, True always, False never; or a
            callable(phase, done, total), see docs/amp.md.
        max_evaluations: how many points of the walk phase 2 evaluates at most; None
            for all that the algorithm wants. Without an allowed drop the points are
            spread so that the curve is known best: first the narrowest, then again
            and again the one in the middle of the largest gap in cost x score. The
            others are in the result's `skipped`.
        memory_budget: bytes of activations that may be kept between evaluations, so
            that only what changed is computed (`docs/amp.md`); 0: everything is
            computed. None: a quarter of the memory that is free on the model's device.
        distributed: share the evaluations with the other ranks of torch.distributed.
            Each rank calls this with the same arguments and gets the same result, that
            of a single process. None: where there is more than one rank. A callback
            that communicates with other ranks needs False.

    Returns:
        The evaluated points of the walk as (relative bit-ops, score, group,
        candidate), with attributes for the rest.

    Raises:
        TypeError: an argument of the wrong type; a callback that returns no number.
        ValueError: an empty or malformed candidate, no common candidate, an option
            that is not available, a folder that cannot be written.
        RuntimeError: an uncalibrated simulation; a NaN score; a results folder that
            another run uses.
        Exception: whatever a callback raises; the simulation is then as before.
    """
    algo = GreedyMixedPrecisionAlgo(
        sim,
        dummy_input,
        candidates,
        eval_callback_for_phase1,
        eval_callback_for_phase2,
        results_dir,
        clean_start,
        forward_pass_callback,
        use_all_amp_candidates,
        phase2_reverse,
        phase1_optimize,
        convert_op_reduction=convert_op_reduction,
        convert_costs=convert_costs,
        cost_table=cost_table,
        include=include,
        exclude=exclude,
        progress=progress,
        max_evaluations=max_evaluations,
        memory_budget=memory_budget,
        distributed=distributed,
    )
    return algo.run(allowed_accuracy_drop, amp_search_algo)


def estimate_mixed_precision(
    sim: Any,
    dummy_input: Any,
    candidates: Any,
    eval_callback_for_phase1: Callable[[Any], Any],
    eval_callback_for_phase2: Callable[[Any], Any],
    allowed_accuracy_drop: float | None,
    results_dir: str | os.PathLike[str],
    clean_start: bool,
    forward_pass_callback: Callable[[Any], Any] | None,
    *,
    amp_search_algo: AMPSearchAlgo = AMPSearchAlgo.Binary,
    **options: Any,
) -> SearchEstimate:
    """Evaluations, minutes and memory of `choose_mixed_precision`, before it runs.

    A few settings are evaluated to be timed. Their scores stay in `results_dir`: call
    `choose_mixed_precision` with the same arguments and `clean_start=False`, and
    nothing is evaluated twice. The simulation is left as it was, but
    calibrated where it was not.

    Args:
        sim: as in `choose_mixed_precision`.
        dummy_input: as in `choose_mixed_precision`.
        candidates: as in `choose_mixed_precision`.
        eval_callback_for_phase1: as in `choose_mixed_precision`.
        eval_callback_for_phase2: as in `choose_mixed_precision`.
        allowed_accuracy_drop: as in `choose_mixed_precision`.
        results_dir: as in `choose_mixed_precision`.
        clean_start: as in `choose_mixed_precision`.
        forward_pass_callback: as in `choose_mixed_precision`.
        amp_search_algo: as in `choose_mixed_precision`.
        **options: the other keyword arguments of `choose_mixed_precision`.

    Returns:
        The estimate by phase; `print` shows a table, with the number of evaluations
        that AIMET's search would make.

    Raises:
        Exception: as `choose_mixed_precision`.
    """
    algo = GreedyMixedPrecisionAlgo(
        sim,
        dummy_input,
        candidates,
        eval_callback_for_phase1,
        eval_callback_for_phase2,
        results_dir,
        clean_start,
        forward_pass_callback,
        **options,
    )
    return algo.estimate(allowed_accuracy_drop, amp_search_algo)


def choose_fast_mixed_precision(
    sim: Any,
    dummy_input: Any,
    candidates: Any,
    data_loader_wrapper: Callable[[], Any],
    eval_callback_for_phase2: Callable[[Any], Any],
    allowed_accuracy_drop: float | None,
    results_dir: str | os.PathLike[str],
    clean_start: bool,
    forward_pass_callback: Callable[[Any], Any] | None,
    forward_pass_callback_2: Callable[[Any, Any], Any] | None = None,
    amp_search_algo: AMPSearchAlgo = AMPSearchAlgo.Binary,
    phase1_optimize: bool = True,
    **options: Any,
) -> ParetoList:
    """`choose_mixed_precision` with SQNR as the phase-1 metric (AMP 2.0).

    Args:
        sim: as in `choose_mixed_precision`.
        dummy_input: as in `choose_mixed_precision`.
        candidates: as in `choose_mixed_precision`.
        data_loader_wrapper: called without arguments, returns a data loader for
            phase 1; see EvalCallbackFactory.
        eval_callback_for_phase2: as in `choose_mixed_precision`.
        allowed_accuracy_drop: as in `choose_mixed_precision`.
        results_dir: as in `choose_mixed_precision`.
        clean_start: as in `choose_mixed_precision`.
        forward_pass_callback: as in `choose_mixed_precision`.
        forward_pass_callback_2: called as `callback(model, batch)`, returns the
            output; None: the model is called with the batch.
        amp_search_algo: as in `choose_mixed_precision`.
        phase1_optimize: as in `choose_mixed_precision`.
        **options: the other keyword arguments of `choose_mixed_precision`.

    Returns:
        As `choose_mixed_precision`.

    Raises:
        TypeError: data_loader_wrapper is not callable; else as there.
    """
    data_loader = load_data(data_loader_wrapper)
    factory = EvalCallbackFactory(data_loader, forward_pass_callback_2)
    return choose_mixed_precision(
        sim,
        dummy_input,
        candidates,
        factory.sqnr(sim),
        eval_callback_for_phase2,
        allowed_accuracy_drop,
        results_dir,
        clean_start,
        forward_pass_callback,
        phase1_optimize=phase1_optimize,
        amp_search_algo=amp_search_algo,
        **options,
    )
