# SPDX-License-Identifier: BSD-3-Clause
"""Options of auto mixed precision, of both generations of names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aimetpp.amp.arguments import check_drop
from aimetpp.quark.types import precision_of

COMPUTE_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
Outputs = list[list[np.ndarray]]  # by sample, by output


@dataclass
class AutoPlan:
    """What a search is asked for.

    Attributes:
        narrow: (activation, weight) precisions, one or more.
        distance: of (float outputs, quantized outputs), lower is better; None with
            `evaluate`.
        evaluate: score of outputs, higher is better.
        target: largest distance, or loss of score; None: no search for one.
        output_index: the model output that is looked at; None: all.
        data_size: samples of the reader; None: all.
        op_types: layers that are searched.
        indices: of layers, in graph order; None: all.
        excluded_indices: layers that are left out.
        include, exclude: nodes by name.
        tensors: set these to `narrow` and search nothing.
        num_target: stop after so many groups; None: no such limit.
        skip_breaking: go on past a layer that breaks the target.
        no_input_shared: leave out layers whose input others read as well.
    """

    narrow: list[tuple[str, str]]
    distance: Callable[[Outputs, Outputs], float] | None = None
    evaluate: Callable[[Outputs], float] | None = None
    target: float | None = None
    output_index: int | None = None
    data_size: int | None = None
    op_types: tuple[str, ...] = COMPUTE_OPS
    indices: list[int] | None = None
    excluded_indices: list[int] = field(default_factory=list)
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)
    num_target: int | None = None
    skip_breaking: bool = False
    no_input_shared: bool = False

    @property
    def measures(self) -> bool:
        """Whether anything is to be evaluated."""
        return self.target is not None or self.num_target is not None


def mean_l2(reference: Outputs, outputs: Outputs) -> float:
    """Mean over samples and outputs of the Euclidean distance."""
    pairs = zip(reference, outputs, strict=True)
    return float(
        np.mean(
            [
                np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64))
                for expected, got in pairs
                for a, b in zip(expected, got, strict=True)
            ]
        )
    )


def mean_cosine_distance(reference: Outputs, outputs: Outputs) -> float:
    """Mean over samples and outputs of 1 - cosine."""

    def distance(a: Any, b: Any) -> float:
        a, b = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
        size = np.linalg.norm(a) * np.linalg.norm(b)
        return 1 - float(a @ b / size) if size else float(np.any(a) != np.any(b))

    pairs = zip(reference, outputs, strict=True)
    return float(
        np.mean(
            [
                distance(a, b)
                for expected, got in pairs
                for a, b in zip(expected, got, strict=True)
            ]
        )
    )


def noise_to_signal(reference: Outputs, outputs: Outputs) -> float:
    """Total noise power over total signal power: 10 ** (-SQNR / 10)."""
    signal = noise = 0.0
    for expected, got in zip(reference, outputs, strict=True):
        for a, b in zip(expected, got, strict=True):
            a = np.asarray(a, np.float64)
            signal += float(np.square(a).sum())
            noise += float(np.square(a - np.asarray(b, np.float64)).sum())
    if noise == 0:
        return 0.0
    return noise / signal if signal else math.inf


def read_auto_options(options: Any, activation: str, weight: str) -> AutoPlan:
    """The plan of `extra_options["AutoMixprecision"]`.

    Args:
        options: the dict, in the tutorial's names.
        activation: the wide precision, which stays where no target type is given.
        weight: the same, of weights.

    Raises:
        TypeError: something of the wrong type.
        ValueError: an unknown key, one without effect, or no target type.
    """
    if isinstance(options, AutoPlan):
        return options
    if not isinstance(options, Mapping):
        raise TypeError(
            f"AutoMixprecision must be a dict of options, got {type(options).__name__}"
        )
    given = dict(options)
    plan = AutoPlan([_target_types(given, activation, weight)])
    _read_target(plan, given)
    plan.output_index = _int(given, "OutputIndex", None)
    plan.data_size = _int(given, "DataSize", None)
    if plan.data_size == 0:
        raise ValueError("AutoMixprecision: DataSize must be at least 1, got 0")
    plan.num_target = _int(given, "NumTarget", None) or None
    plan.op_types = tuple(_names(given, "TargetOpType") or COMPUTE_OPS)
    plan.tensors = _names(given, "TargetTensors")
    indices = given.pop("TargetIndices", None)
    plan.indices = [int(index) for index in indices] if indices else None
    plan.excluded_indices = [int(i) for i in given.pop("ExcludeIndices", None) or []]
    plan.skip_breaking = _flag(given, "SkipBreaking")
    plan.no_input_shared = _flag(given, "NoInputQDQShared")
    for key in ("AutoMixUseFastFT", "DualQuantNodes"):
        if given.pop(key, False):
            raise ValueError(f"AutoMixprecision: {key}=True is not supported")
    if given:
        raise ValueError(f"AutoMixprecision: unknown keys {sorted(map(str, given))}")
    check_plan(plan)
    return plan


def _target_types(
    given: dict[str, Any], activation: str, weight: str
) -> tuple[str, str]:
    types = {
        key: precision_of(given.pop(key), key)
        for key in ("TargetQuantType", "ActTargetQuantType", "WeightTargetQuantType")
        if given.get(key) is not None
    }
    if not types:
        raise ValueError(
            "AutoMixprecision: ActTargetQuantType or WeightTargetQuantType is required"
        )
    if "TargetQuantType" in types and len(types) > 1:
        raise ValueError(
            "AutoMixprecision: TargetQuantType has no effect beside ActTargetQuantType "
            "or WeightTargetQuantType"
        )
    narrow = types.get("ActTargetQuantType", types.get("TargetQuantType", activation))
    return narrow, types.get("WeightTargetQuantType", weight)


def _read_target(plan: AutoPlan, given: dict[str, Any]) -> None:
    l2, top1 = given.pop("L2Target", None), given.pop("Top1AccTarget", None)
    plan.evaluate = given.pop("EvaluateFunction", None)
    if l2 is not None and top1 is not None:
        raise ValueError("AutoMixprecision: L2Target or Top1AccTarget, not both")
    if (top1 is None) != (plan.evaluate is None):
        raise ValueError(
            "AutoMixprecision: Top1AccTarget and EvaluateFunction go together"
        )
    if plan.evaluate is not None and not callable(plan.evaluate):
        raise TypeError("AutoMixprecision: EvaluateFunction must be callable")
    plan.target = check_drop(top1, "Top1AccTarget")
    if l2 is not None:
        plan.target = check_drop(l2, "L2Target")
    if l2 is not None and l2 < 0:
        raise ValueError(f"AutoMixprecision: L2Target must be at least 0, got {l2}")
    plan.distance = mean_l2 if plan.evaluate is None else None


def _int(given: dict[str, Any], key: str, default: int | None) -> int | None:
    value = given.pop(key, default)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise TypeError(f"AutoMixprecision: {key} must be an int, got {value!r}")
    if value is not None and value < 0:
        raise ValueError(f"AutoMixprecision: {key} must be at least 0, got {value}")
    return value


def _flag(given: dict[str, Any], key: str) -> bool:
    value = given.pop(key, False)
    if not isinstance(value, bool):
        raise TypeError(f"AutoMixprecision: {key} must be a bool, got {value!r}")
    return value


def _names(given: dict[str, Any], key: str) -> list[str]:
    names = given.pop(key, None) or []
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"AutoMixprecision: {key} must be a list, got {names!r}")
    return list(names)


def check_plan(plan: AutoPlan) -> None:
    """Raises a ValueError for what has no effect with the rest of a plan."""
    if plan.tensors:
        searching = {
            "TargetOpType": plan.op_types != COMPUTE_OPS,
            "NoInputQDQShared": plan.no_input_shared,
            "a target": plan.target is not None,
            "NumTarget": plan.num_target is not None,
            "TargetIndices": plan.indices is not None,
            "ExcludeIndices": bool(plan.excluded_indices),
        }
        for name, there in searching.items():
            if there:
                raise ValueError(
                    f"AutoMixprecision: {name} has no effect with TargetTensors, which "
                    "are narrowed without a search"
                )
    if plan.indices is not None and plan.excluded_indices:
        raise ValueError("AutoMixprecision: TargetIndices or ExcludeIndices, not both")
    if plan.skip_breaking and plan.target is None:
        raise ValueError(
            "AutoMixprecision: SkipBreaking has no effect without a target"
        )
    if not plan.measures:
        for name, there in {
            "OutputIndex": plan.output_index is not None,
            "DataSize": plan.data_size is not None,
        }.items():
            if there:
                raise ValueError(
                    f"AutoMixprecision: {name} has no effect where nothing is "
                    "measured: give L2Target, Top1AccTarget or NumTarget"
                )
