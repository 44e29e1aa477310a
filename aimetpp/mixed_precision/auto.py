# SPDX-License-Identifier: BSD-3-Clause
"""Automatic mixed precision with one metric and a target, as AMD Quark does it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aimetpp.amp.arguments import check_drop, check_flag, check_sim
from aimetpp.amp.callbacks import check_callback
from aimetpp.amp.candidates import parse_candidates
from aimetpp.amp.evaluation import ForwardFn
from aimetpp.amp.narrowing_algo import NarrowingAlgo
from aimetpp.amp.quantizer_groups import NamedGroup, build_members
from aimetpp.amp.results import ParetoList
from aimetpp.amp.selection import reading_groups, select_groups
from aimetpp.common.precision import Precision


@dataclass(frozen=True)
class _Target:
    value: float
    data_loader: Iterable[Any]
    num_samples: int | None = None
    forward_fn: ForwardFn | None = None


class L2Target(_Target):
    """The output may be this far from the float model's.

    Attributes:
        value: largest mean over samples (and outputs) of the Euclidean distance,
            in units of the output.
        data_loader: as of EvalCallbackFactory.
        num_samples: how many samples of it; None for all.
        forward_fn: as of EvalCallbackFactory.
    """


class Top1Target(_Target):
    """Top-1 accuracy may be this much lower than the float model's.

    Attributes:
        value: largest loss; 0.01 is one point.
        data_loader: as of EvalCallbackFactory; batches hold labels.
        num_samples: how many samples of it; None for all.
        forward_fn: as of EvalCallbackFactory.
    """


def auto_mixed_precision(
    sim: Any,
    wide: Any,
    narrow: Any,
    *,
    target: float | L2Target | Top1Target | None = None,
    evaluate: Callable[[Any], Any] | None = None,
    output_index: int | None = None,
    skip_breaking: bool = False,
    max_narrowed: int | None = None,
    op_types: Sequence[str] | None = None,
    include: Any = None,
    exclude: Any = None,
    use_all_amp_candidates: bool = False,
    forward_pass_callback: Callable[[Any], Any] | None = None,
    results_dir: str | os.PathLike[str] | None = None,
    clean_start: bool = True,
    progress: Any = None,
) -> ParetoList:
    """Narrows group after group until the next one would break a target.

    1. Every group is set to `wide`, and the model is scored.
    2. Each group alone is set to `narrow`, the others are wide; the loss of score
       against the float model is the group's sensitivity.
    3. In ascending order of sensitivity groups are set to `narrow` and stay so, until
       one breaks the target; that one goes back to `wide`.

    Where every group at its narrowest meets the target, that is found first and no
    sensitivity is measured.

    Source: AMD Quark's tutorial on mixed precision ("Auto Mixed Precision"), for ONNX
    files there. `choose_mixed_precision` evaluates less and gives a front of
    candidates; here one metric serves both phases and each step is measured.

    Args:
        sim: a calibrated QuantizationSimModel, of a PyTorch, ONNX or Keras model;
            changed in place. Quantizers that are not searched keep their precision.
        wide: ((activation bitwidth, dtype), (param bitwidth, dtype)), or a pair of
            names such as ("int16", "int8"), or one name for both.
        narrow: the same, or a list of them ("hybrid" precision: wide "fp32", narrow
            ["fp16", "int8"]); a group goes through them as their sensitivities say,
            and only ever narrows.
        target: an L2Target; a Top1Target; or a number, the largest loss of
            `evaluate`'s score against the float model. None: the score of every step
            is measured, and everything is narrow in the end.
        evaluate: a callable of the model, or of an ONNX model's session, that returns
            a score, higher is better; given unless the target is an L2Target or a
            Top1Target.
        output_index: which of the model's outputs an L2Target or Top1Target looks at,
            in the order in which they lie in a nested output; None: all.
        skip_breaking: a group that breaks the target goes back to `wide`, and the
            search goes on with the next.
        max_narrowed: stop once so many groups are narrower than `wide`.
        op_types: ONNX types ("Conv") or kinds ("conv2d"): search only the groups
            that such ops read. None: all groups.
        include: as in `choose_mixed_precision`.
        exclude: as in `choose_mixed_precision`.
        use_all_amp_candidates: ignore the config's supported_kernels.
        forward_pass_callback: calibrates the simulation where it is not calibrated.
        results_dir: as in `choose_mixed_precision`; None: nothing is written.
        clean_start: as in `choose_mixed_precision`.
        progress: as in `choose_mixed_precision`.

    Returns:
        As `choose_mixed_precision`: every step that was measured, also those that
        broke the target. `.chosen` is the setting that the simulation is left in.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: `narrow` is not narrower than `wide`; `wide` has no kernel; an
            argument that would have no effect; nothing to search.
        RuntimeError: an uncalibrated simulation; a NaN score.
        Exception: whatever `evaluate` raises; the simulation is then as before.
    """
    check_sim(sim)
    candidates = narrowing_candidates(wide, narrow)
    drop, callback = _metric(sim, target, evaluate, output_index)
    skip = check_flag(skip_breaking, "skip_breaking")
    if max_narrowed is not None and (
        not isinstance(max_narrowed, int) or isinstance(max_narrowed, bool)
    ):
        raise TypeError(f"max_narrowed must be an int or None, got {max_narrowed!r}")
    if skip and drop is None:
        raise ValueError("skip_breaking has no effect without a target")
    if results_dir is None and not check_flag(clean_start, "clean_start"):
        raise ValueError("clean_start=False has no effect without a results_dir")
    if op_types is not None:
        include, exclude = _groups_of_ops(sim, op_types, include, exclude), None
    algo = NarrowingAlgo(
        sim,
        candidates,
        callback,
        skip,
        max_narrowed,
        results_dir=results_dir,
        clean_start=clean_start,
        forward_pass_callback=forward_pass_callback,
        use_all_amp_candidates=use_all_amp_candidates,
        include=include,
        exclude=exclude,
        progress=progress,
    )
    return algo.run(drop)


def narrowing_candidates(wide: Any, narrow: Any) -> list[tuple[str, str]]:
    """The wide candidate and the narrow ones, as `auto_mixed_precision` takes them.

    Raises:
        TypeError: something that is no candidate.
        ValueError: a narrow one that is not narrower, or there twice.
    """
    narrower = narrow if isinstance(narrow, list) else [narrow]
    if not narrower:
        raise ValueError("narrow must name at least one candidate, got []")
    candidates = [_candidate(wide, "wide")]
    for one in narrower:
        candidate = _candidate(one, "narrow")
        bits = [
            [Precision.parse(name).bitwidth for name in pair]
            for pair in (candidates[0], candidate)
        ]
        if bits[0] == bits[1] or any(new > old for old, new in zip(*bits, strict=True)):
            raise ValueError(
                f"narrow must have fewer bits than wide={candidates[0]}, and more in "
                f"nothing, got {candidate}"
            )
        if candidate in candidates:
            raise ValueError(f"narrow: {candidate} is there twice")
        candidates.append(candidate)
    return candidates


def _candidate(value: Any, argument: str) -> tuple[str, str]:
    pair = (value, value) if isinstance(value, str | Precision) else value
    try:
        return parse_candidates([pair])[0]
    except (TypeError, ValueError) as error:
        text = str(error).replace("candidates[0]", argument)
        raise type(error)(text) from None


def _metric(
    sim: Any, target: Any, evaluate: Any, output_index: int | None
) -> tuple[float | None, Callable[[Any], Any]]:
    """The largest loss, and the score that it is a loss of."""
    if isinstance(target, L2Target | Top1Target):
        name = type(target).__name__
        if evaluate is not None:
            raise ValueError(f"evaluate has no effect with an {name}")
        factory = sim.callback_factory(
            target.data_loader, target.forward_fn, output_index=output_index
        )
        make = factory.distance if isinstance(target, L2Target) else factory.top1
        return check_drop(target.value, name), make(sim, target.num_samples)
    drop = check_drop(target, "target")
    if evaluate is None:
        raise ValueError(
            "evaluate must be given where the target is no L2Target or Top1Target"
        )
    if output_index is not None:
        raise ValueError(
            "output_index has no effect with evaluate, which sees the model itself; it "
            "goes with an L2Target or a Top1Target"
        )
    return drop, check_callback(evaluate, "evaluate")


def _groups_of_ops(
    sim: Any, op_types: Sequence[str], include: Any, exclude: Any
) -> list[NamedGroup]:
    selected = select_groups(sim, build_members(sim), include, exclude)
    reading = reading_groups(sim, selected, op_types)
    return [members.group for members in selected if members.group in reading]
