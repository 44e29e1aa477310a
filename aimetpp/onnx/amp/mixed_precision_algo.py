# SPDX-License-Identifier: BSD-3-Clause
"""The greedy search, and the built-in metrics, on an ONNX model's session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from aimetpp.amp import evaluation, mixed_precision_algo
from aimetpp.amp.simulation import Simulation
from aimetpp.common.batches import split_batch

__all__ = ["EvalCallbackFactory", "GreedyMixedPrecisionAlgo"]


class GreedyMixedPrecisionAlgo(mixed_precision_algo.GreedyMixedPrecisionAlgo):
    """The search behind `choose_mixed_precision`, which documents the arguments."""

    def __init__(
        self,
        sim: Simulation,
        candidates: Any,
        eval_callback_for_phase1: Callable[[Any], Any],
        eval_callback_for_phase2: Callable[[Any], Any],
        results_dir: str | os.PathLike[str],
        clean_start: bool,
        forward_pass_callback: Callable[[Any], Any] | None,
        use_all_amp_candidates: bool = False,
        phase1_optimize: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(
            sim,
            None,
            candidates,
            eval_callback_for_phase1,
            eval_callback_for_phase2,
            results_dir,
            clean_start,
            forward_pass_callback,
            use_all_amp_candidates,
            phase1_optimize=phase1_optimize,
            **options,
        )


class _SessionMetric(evaluation.Metric):
    """A metric of what a session computes."""

    def _loaded_batches(self) -> Iterator[Any]:
        return (pytree.tree_map(_as_tensor, batch) for batch in self._data_loader)

    def _state_of_weights(self, model: Any) -> Any:
        return id(model)  # a session's weights never change

    def _forward(self, sim: Any, model: Any, batch: Any) -> Any:
        if self._forward_fn is not None:
            result = self._forward_fn(model, pytree.tree_map(_as_array, batch))
            return pytree.tree_map(_as_tensor, result)
        inputs, _ = self._split(sim, batch)
        names = [value.name for value in model.get_inputs()]
        if not isinstance(inputs, Mapping):
            inputs = dict(zip(names, inputs, strict=True))
        feeds = {name: _as_array(value) for name, value in inputs.items()}
        return [_as_tensor(output) for output in model.run(None, feeds)]

    def _labels(self, sim: Any, batch: Any) -> Any:
        return self._split(sim, batch)[1]

    def _split(self, sim: Any, batch: Any) -> tuple[Any, Any]:
        first = batch[0] if isinstance(batch, tuple | list) else batch
        if isinstance(first, Mapping):
            return split_batch(sim.dummy_input, batch)
        return split_batch(tuple(sim.dummy_input.values()), batch)


class EvalCallbackFactory(evaluation.EvalCallbackFactory):
    """Makes evaluation callbacks from a data loader, for the simulation's session.

    Every metric is higher for a better match, and depends on the samples only: not
    on how they are batched, the last batch is cut to the number of samples asked
    for. The samples are read once and kept, so that every evaluation sees the same.
    The metrics are those of aimetpp.amp.evaluation.EvalCallbackFactory.

    Args:
        data_loader: an iterable of batches: arrays; or tuples or lists that begin with
            an array for each model input and may go on with labels; or dicts by the
            names of the inputs.
        forward_fn: called as `forward_fn(session, batch)`, returns the output. The
            default feeds the inputs and returns all outputs.
        output_index: which of the floating outputs counts; None for all.

    Raises:
        TypeError, ValueError: as there.
    """

    _metric_class = _SessionMetric


def _as_tensor(value: Any) -> Any:
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value


def _as_array(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value
