# SPDX-License-Identifier: BSD-3-Clause
"""Batch-norm re-estimation: statistics of the model as it is now, quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from aimetpp.ptq.samples import Samples

__all__ = ["Handle", "reestimate_bn_stats"]


class Handle:
    """Puts the statistics back that batch norms had before re-estimation; also a
    context manager that does so at its end.
    """

    def __init__(self, batch_norms: Iterable[_BatchNorm]) -> None:
        self._saved = [
            (buffer, buffer.clone())
            for module in batch_norms
            for buffer in module.buffers(recurse=False)
        ]

    def remove(self) -> None:
        """Undoes the re-estimation; a second call does nothing."""
        for buffer, value in self._saved:
            buffer.copy_(value)
        self._saved = []

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def reestimate_bn_stats(
    model: torch.nn.Module,
    dataloader: Iterable[Any],
    num_batches: int = 100,
    forward_fn: Callable[[torch.nn.Module, Any], Any] | None = None,
) -> Handle:
    """Sets running mean and variance of every batch norm to the average over batches,
    in place.

    After QAT, or after weights were quantized, the statistics that were gathered in
    training are those of other weights, or of the mixture that an epoch went through.

    Args:
        model: a simulation's `sim.model`, or any model. In eval mode but for the batch
            norms meanwhile.
        dataloader: yields inputs, alone or with labels behind them.
        num_batches: at most so many.
        forward_fn: called as `forward_fn(model, batch)`.

    Returns:
        A handle whose `remove()` puts the old statistics back.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: no batch norm with kept statistics, or no data.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            "reestimate_bn_stats: model must be a torch.nn.Module, got "
            f"{type(model).__name__}"
        )
    batch_norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    if not batch_norms:
        raise ValueError(
            "reestimate_bn_stats: the model has no batch norm with kept statistics"
        )
    samples = Samples(
        "reestimate_bn_stats",
        dataloader,
        None,
        num_batches,
        forward_fn=forward_fn,
        kept=False,
    )
    handle = Handle(batch_norms)
    momenta = [module.momentum for module in batch_norms]
    try:
        for module in batch_norms:
            module.reset_running_stats()
            module.momentum = None  # the average of all batches, each as much
        samples.run(model, training=batch_norms)
    except BaseException:
        handle.remove()
        raise
    finally:
        for module, momentum in zip(batch_norms, momenta, strict=True):
            module.momentum = momentum
    return handle
