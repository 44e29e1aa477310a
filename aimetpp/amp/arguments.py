# SPDX-License-Identifier: BSD-3-Clause
"""Checks of a search's arguments, before anything is evaluated."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aimetpp.amp.evaluator import SimState
from aimetpp.amp.quantizer_groups import GroupMembers
from aimetpp.amp.results import ParetoList
from aimetpp.amp.simulation import Simulation
from aimetpp.common.amp.utils import AMPSearchAlgo
from aimetpp.common.files import make_writable_folder
from aimetpp.common.shared_work import process_group_size
from aimetpp.common.text import shortened


class ResultsFolderError(OSError, ValueError):
    """`results_dir` cannot be made or written."""


def check_sim(sim: Any) -> None:
    """Raises a TypeError for what is no simulation."""
    if not isinstance(sim, Simulation):
        raise TypeError(f"sim must be a QuantizationSimModel, got {type(sim).__name__}")


def check_flag(value: Any, argument: str) -> bool:
    """True or False; anything else is a TypeError."""
    if value not in (True, False):
        raise TypeError(f"{argument} must be True or False, got {value!r}")
    return bool(value)


def check_drop(drop: Any, argument: str = "allowed_accuracy_drop") -> float | None:
    """The allowed drop; a TypeError for no number, a ValueError for NaN."""
    if drop is None:
        return None
    if isinstance(drop, bool | str | bytes):
        raise TypeError(
            f"{argument} must be a number or None, got {type(drop).__name__}"
        )
    try:
        value = float(drop)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{argument} must be a number or None, got {type(drop).__name__}"
        ) from error
    if math.isnan(value):
        raise ValueError(f"{argument} must be a number or None, got nan")
    return value


def check_cost(cost: Any, where: str) -> None:
    """Raises for what is no finite number of 0 or more; `where` names it.

    Raises:
        TypeError: not a number.
        ValueError: negative, infinite or NaN.
    """
    if isinstance(cost, bool) or not isinstance(cost, int | float):
        raise TypeError(f"{where} must be a number, got {type(cost).__name__}")
    if not 0 <= cost < math.inf:
        raise ValueError(f"{where} must be finite and not negative, got {cost}")


def check_max_evaluations(most: Any) -> int | None:
    """Points of the walk to evaluate; None for all.

    Raises:
        TypeError: not a whole number.
        ValueError: less than 1.
    """
    if most is None:
        return None
    if isinstance(most, bool) or not isinstance(most, int):
        raise TypeError(f"max_evaluations must be a whole number or None, got {most!r}")
    if most < 1:
        raise ValueError(f"max_evaluations must be 1 or more, got {most}")
    return most


def check_distributed(distributed: Any) -> bool:
    """Whether ranks share the evaluations; None: where there are several.

    Raises:
        TypeError: not True, False or None.
        ValueError: True, but there is no process group of several.
    """
    if distributed is None:
        return process_group_size() > 1
    if check_flag(distributed, "distributed") and process_group_size() < 2:
        raise ValueError(
            "distributed=True needs more than one rank: start the script with "
            "torchrun, or call torch.distributed.init_process_group"
        )
    return bool(distributed)


def check_memory_budget(value: Any) -> int | None:
    """A number of bytes, or None.

    Raises:
        TypeError: not an int.
        ValueError: negative.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"memory_budget must be a number of bytes or None, got {value!r}"
        )
    if value < 0:
        raise ValueError(f"memory_budget must not be negative, got {value}")
    return value


def load_data(data_loader_wrapper: Any) -> Any:
    """The data loader that a callable without arguments makes.

    Raises:
        TypeError: not callable.
    """
    if not callable(data_loader_wrapper):
        raise TypeError(
            "data_loader_wrapper must be a callable that returns a data loader, got "
            f"{type(data_loader_wrapper).__name__}"
        )
    return data_loader_wrapper()


def check_algo(algo: Any) -> AMPSearchAlgo:
    """The search algorithm; a ValueError for an unknown one."""
    try:
        return AMPSearchAlgo(algo)
    except ValueError as error:
        raise ValueError(
            "amp_search_algo must be AMPSearchAlgo.BruteForce, .Interpolation or "
            f".Binary, got {algo!r}"
        ) from error


def prepare_folder(results_dir: Any) -> Path:
    """The results folder, made; ResultsFolderError where it cannot be written."""
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


def ensure_calibrated(
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


def warn_of_infinity(result: ParetoList, drop: float | None) -> None:
    """Warns where the metric is infinite in full precision, so that no drop is met."""
    if drop is not None and math.isinf(result.fp32_score) and math.isfinite(drop):
        warnings.warn(
            f"the phase-2 metric scores full precision as {result.fp32_score}, so "
            f"that no finite score is within allowed_accuracy_drop={drop}: use a "
            "metric that is finite there, or None",
            RuntimeWarning,
            stacklevel=4,
        )
