# SPDX-License-Identifier: BSD-3-Clause
"""Automatic mixed precision of Keras models."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from aimetpp.amp.arguments import load_data
from aimetpp.amp.results import ParetoList
from aimetpp.common.amp.utils import AMPSearchAlgo
from aimetpp.keras.amp.mixed_precision_algo import EvalCallbackFactory
from aimetpp.mixed_precision import choose_mixed_precision as choose

__all__ = ["choose_fast_mixed_precision", "choose_mixed_precision"]


def choose_mixed_precision(
    sim: Any,
    candidates: Any,
    eval_callback_for_phase1: Callable[[Any], Any],
    eval_callback_for_phase2: Callable[[Any], Any],
    allowed_accuracy_drop: float | None,
    results_dir: str | os.PathLike[str],
    clean_start: bool,
    forward_pass_callback: Callable[[Any], Any] | None,
    amp_search_algo: AMPSearchAlgo = AMPSearchAlgo.Binary,
    phase1_optimize: bool = True,
    **options: Any,
) -> ParetoList:
    """`aimetpp.mixed_precision.choose_mixed_precision` of a Keras simulation.

    Args:
        sim: an aimetpp.keras QuantizationSimModel; changed in place.
        candidates: as there.
        eval_callback_for_phase1: called with the Keras model; else as there.
        eval_callback_for_phase2: called with the Keras model; else as there.
        allowed_accuracy_drop: as there.
        results_dir: as there.
        clean_start: as there.
        forward_pass_callback: called with the Keras model; else as there.
        amp_search_algo: as there.
        phase1_optimize: as there.
        **options: the other keyword arguments there.

    Returns:
        As there.

    Raises:
        Exception: as there.
    """
    return choose(
        sim,
        None,
        candidates,
        eval_callback_for_phase1,
        eval_callback_for_phase2,
        allowed_accuracy_drop,
        results_dir,
        clean_start,
        forward_pass_callback,
        amp_search_algo=amp_search_algo,
        phase1_optimize=phase1_optimize,
        **options,
    )


def choose_fast_mixed_precision(
    sim: Any,
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
        candidates: as in `choose_mixed_precision`.
        data_loader_wrapper: called without arguments, returns a data loader for
            phase 1; see `aimetpp.keras.amp.mixed_precision_algo.EvalCallbackFactory`.
        eval_callback_for_phase2: as in `choose_mixed_precision`.
        allowed_accuracy_drop: as in `choose_mixed_precision`.
        results_dir: as in `choose_mixed_precision`.
        clean_start: as in `choose_mixed_precision`.
        forward_pass_callback: as in `choose_mixed_precision`.
        forward_pass_callback_2: called as `callback(model, batch)`, returns the output
            as an array or tensor; None: the model is called with the batch.
        amp_search_algo: as in `choose_mixed_precision`.
        phase1_optimize: as in `choose_mixed_precision`.
        **options: as in `choose_mixed_precision`.

    Returns:
        As `choose_mixed_precision`.

    Raises:
        TypeError: data_loader_wrapper is not callable; else as there.
    """
    data_loader = load_data(data_loader_wrapper)
    factory = EvalCallbackFactory(data_loader, forward_pass_callback_2)
    return choose_mixed_precision(
        sim,
        candidates,
        factory.sqnr(sim),
        eval_callback_for_phase2,
        allowed_accuracy_drop,
        results_dir,
        clean_start,
        forward_pass_callback,
        amp_search_algo,
        phase1_optimize,
        **options,
    )
