# SPDX-License-Identifier: BSD-3-Clause
"""The search, and metrics whose data and outputs are numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from aimetpp.amp.evaluation import EvalCallbackFactory as TorchEvalCallbackFactory
from aimetpp.amp.mixed_precision_algo import GreedyMixedPrecisionAlgo

__all__ = ["EvalCallbackFactory", "GreedyMixedPrecisionAlgo"]


class EvalCallbackFactory(TorchEvalCallbackFactory):
    """Makes evaluation callbacks from data of Keras.

    Args:
        data_loader: an iterable of batches, or a keras.utils.PyDataset: arrays or
            tensors, alone or in tuples with labels behind the inputs.
        forward_fn: called as `forward_fn(model, batch)`, returns the output as an array
            or tensor; None: the model is called with the inputs.
        output_index: as of aimetpp.amp.evaluation.EvalCallbackFactory.

    Raises:
        TypeError, ValueError: as there.
    """

    def __init__(
        self,
        data_loader: Any,
        forward_fn: Callable[[Any, Any], Any] | None = None,
        *,
        output_index: int | None = None,
    ) -> None:
        iterable = hasattr(data_loader, "__iter__") or (
            hasattr(data_loader, "__getitem__") and hasattr(data_loader, "__len__")
        )
        loader = _Batches(data_loader) if iterable else data_loader
        forward = None if forward_fn is None else _AsTensors(forward_fn)
        super().__init__(loader, forward, output_index=output_index)


class _Batches:
    """Batches with tensors for arrays."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        if hasattr(self._loader, "__iter__"):
            yield from map(_with_tensors, self._loader)
        else:
            for index in range(len(self._loader)):
                yield _with_tensors(self._loader[index])


class _AsTensors:
    """A user's forward function, its outputs as tensors."""

    def __init__(self, forward_fn: Callable[[Any, Any], Any]) -> None:
        self.forward_fn = forward_fn

    def __call__(self, model: Any, batch: Any) -> Any:
        return _with_tensors(self.forward_fn(model, batch))


def _with_tensors(values: Any) -> Any:
    return pytree.tree_map(
        lambda x: torch.as_tensor(x) if isinstance(x, np.ndarray) else x, values
    )
