# SPDX-License-Identifier: BSD-3-Clause
"""Mixed precision of ONNX models: found automatically, or asked for by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from aimetpp.amp.results import ParetoList
from aimetpp.common.amp.utils import AMPSearchAlgo
from aimetpp.common.precision import is_precision, precision_name
from aimetpp.mixed_precision import configurator
from aimetpp.mixed_precision.configurator import Precision, params_asked
from aimetpp.onnx.amp.mixed_precision_algo import (
    EvalCallbackFactory,
    GreedyMixedPrecisionAlgo,
)
from aimetpp.onnx.naming import NodeNameBook, OpType, TensorPorts, TensorTarget
from aimetpp.quantsim.sites import Site

__all__ = [
    "EvalCallbackFactory",
    "GreedyMixedPrecisionAlgo",
    "MixedPrecisionConfigurator",
    "Precision",
    "choose_mixed_precision",
]


def choose_mixed_precision(
    sim: Any,
    candidates: Any,
    eval_callback_for_phase1: Callable[[Any], Any],
    eval_callback_for_phase2: Callable[[Any], Any],
    allowed_accuracy_drop: float | None,
    results_dir: str | os.PathLike[str],
    clean_start: bool,
    forward_pass_callback: Callable[[Any], Any] | None,
    use_all_amp_candidates: bool = False,
    phase1_optimize: bool = True,
    amp_search_algo: AMPSearchAlgo = AMPSearchAlgo.Binary,
    **options: Any,
) -> ParetoList:
    """Finds the cheapest precision of each quantizer group within an accuracy drop.

    The search, its result and its files are those of
    `aimetpp.mixed_precision.choose_mixed_precision`, which says more of them.

    Source: AIMET's guide to automatic mixed precision.

    Args:
        sim: a calibrated aimetpp.onnx.QuantizationSimModel; changed in place.
        candidates: list of ((activation bitwidth, dtype), (param bitwidth, dtype)).
        eval_callback_for_phase1: a CallbackFunc or a callable of the session, which
            returns a score, higher is better.
        eval_callback_for_phase2: the same; the metric that counts.
        allowed_accuracy_drop: largest drop of the phase-2 score from full precision;
            None: the whole profile is evaluated.
        results_dir: folder for the results and the cache.
        clean_start: forget what an earlier run left in the cache.
        forward_pass_callback: calibrates the simulation where it is not calibrated.
        use_all_amp_candidates: ignore the config's supported_kernels.
        phase1_optimize: accepted for compatibility; both values give the same.
        amp_search_algo: how phase 2 looks for the point.
        **options: the keyword arguments of the search for PyTorch models:
            convert_op_reduction, cost_table, include, exclude (names or globs of nodes
            and tensors, or QuantizerGroups), progress and the others.

    Returns:
        The evaluated points of the walk as (relative bit-ops, score, group,
        candidate), with attributes for the rest.

    Raises:
        TypeError, ValueError, RuntimeError: as there.
    """
    algo = GreedyMixedPrecisionAlgo(
        sim,
        candidates,
        eval_callback_for_phase1,
        eval_callback_for_phase2,
        results_dir,
        clean_start,
        forward_pass_callback,
        use_all_amp_candidates,
        phase1_optimize,
        **options,
    )
    return algo.run(allowed_accuracy_drop, amp_search_algo)


class MixedPrecisionConfigurator(configurator.MixedPrecisionConfigurator):
    """Collects precision requests and applies them to an ONNX simulation at once.

    The requests are resolved as those on PyTorch models are. Model inputs and outputs
    are nested as a dict by their names.

    Args:
        sim: an aimetpp.onnx.QuantizationSimModel; it may be calibrated or not.
    """

    _required = ("model", "graph", "placement", "apply_precisions", "reading")

    def _make_name_book(self, sim: Any) -> NodeNameBook:
        return NodeNameBook(sim)

    def set_precision(  # type: ignore[override]
        self,
        arg: str | Site | OpType,
        activation: Any,
        param: Mapping[str, Any] | None = None,
    ) -> None:
        """Asks for a precision of one node or tensor, or of several.

        Args:
            arg: the name of a node; of a tensor, or a Site, which stands for that
                tensor alone; an ONNX op type ("Conv"); or a glob over names of nodes
                and tensors, in which stored tensors count only where it matches
                nothing else.
            activation: for the node's inputs and outputs; a list gives the inputs one
                by one and the outputs its first, None in it leaves one as it is. None
                leaves all activations as they are. For the name of a tensor, its
                precision, whether it is computed or stored.
            param: precision by parameter name: "weight", "bias" as the node's type has
                them; of other stored inputs the tensor's name. With a tensor, of the
                node that makes it or, of a model input or a stored tensor, of those
                that read it.

        Raises:
            TypeError: an argument of the wrong type.
            ValueError: an unknown name or precision, a list that does not fit a
                node's inputs or stands with a tensor, or a stored tensor with both a
                precision and `param`.
        """
        target = self._names.find(arg)
        if isinstance(target, TensorTarget):
            self._ask_for_tensors(target, activation, param)
        else:
            super().set_precision(arg, activation, param)  # type: ignore[arg-type]

    def _ask_for_tensors(
        self, target: TensorTarget, activation: Any, param: Mapping[str, Any] | None
    ) -> None:
        params = params_asked(param)
        if activation is None:
            self._add(target.kind, target.subject, target.ops, [], params)
            return
        if isinstance(activation, list | tuple) and not is_precision(activation):
            raise ValueError(
                f"set_precision: activation: {target.subject} is a tensor, which has "
                "one precision, got a list"
            )
        precision = precision_name(activation, "set_precision: activation")
        if not target.params:
            # The second of two entries speaks of nothing.
            ports = TensorPorts([target.inputs, []], target.results)
            names = [precision, None]
            self._add(target.kind, target.subject, target.ops, names, params, ports)
            return
        if params:
            raise ValueError(
                f"set_precision: {target.subject} is stored: give its precision or "
                "param, got both"
            )
        for name, ops in target.params.items():
            self._add(target.kind, target.subject, ops, [], {name: precision})
