# SPDX-License-Identifier: BSD-3-Clause
"""What a data loader yields, as a model's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from aimetpp.common.inference import device_of


def split_batch(example: Any, batch: Any) -> tuple[Any, Any]:
    """The model's inputs in a batch, as a tuple or dict, and the labels or None.

    Args:
        example: an example input of the model: a tensor, a tuple or list, a dict.
        batch: inputs like it, alone or with labels behind them.
    """
    if isinstance(example, dict):
        if isinstance(batch, tuple | list):
            batch, *rest = batch
            return {key: batch[key] for key in example}, rest[0] if rest else None
        labels = batch.get("labels", batch.get("label"))
        return {key: batch[key] for key in example}, labels
    if not isinstance(batch, tuple | list):
        return (batch,), None
    count = len(example) if isinstance(example, tuple | list) else 1
    if count > 1 and isinstance(batch[0], tuple | list):
        return tuple(batch[0]), batch[1] if len(batch) > 1 else None
    return tuple(batch[:count]), batch[count] if len(batch) > count else None


def run_batch(
    model: torch.nn.Module, example: Any, batch: Any, forward_fn: Any = None
) -> Any:
    """The model's output for the inputs in a batch, moved to the model's device."""
    if forward_fn is not None:
        return forward_fn(model, batch)
    inputs, _ = split_batch(example, batch)
    device = device_of(model)
    inputs = pytree.tree_map(
        lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, inputs
    )
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def first_samples(batches: Iterable[Any], num_samples: int | None) -> Iterator[Any]:
    """Batches until they hold `num_samples` samples, the last one cut."""
    left = num_samples
    for batch in batches:
        sizes = [
            leaf.shape[0]
            for leaf in pytree.tree_leaves(batch)
            if isinstance(leaf, torch.Tensor) and leaf.dim() > 0
        ]
        size = sizes[0] if sizes else 1
        if left is not None and size > left:
            batch = pytree.tree_map(_cutter(size, left), batch)
            size = left
        yield batch
        if left is not None:
            left -= size
            if left == 0:
                return


def _cutter(size: int, keep: int) -> Callable[[Any], Any]:
    def cut(leaf: Any) -> Any:
        samples = isinstance(leaf, torch.Tensor) and leaf.dim() > 0
        return leaf[:keep] if samples and leaf.shape[0] == size else leaf

    return cut
