# SPDX-License-Identifier: BSD-3-Clause
"""Batch-norm folding: layers take over the batch norms beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from aimetpp.ptq.batch_norms import fold_into_layers
from aimetpp.ptq.fold_to_scale import fold_to_scale
from aimetpp.ptq.reading import read_model
from aimetpp.quantsim import QuantizationSimModel

__all__ = ["fold_all_batch_norms", "fold_all_batch_norms_to_scale"]


def fold_all_batch_norms(
    model: torch.nn.Module,
    input_shapes: Sequence[Any] | None = None,
    dummy_input: Any = None,
) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
    """Folds batch norms into the layers before or behind them, in place.

    A batch norm goes into the convolution (any rank, grouped, transposed) or linear
    layer whose result it alone reads; else into the convolution or linear layer that
    alone reads its result, where that does not pad with zeros. One that would change
    what the model computes is left: where the layer's result is also read elsewhere or
    returned by the model, where a module or its memory is shared, where code of the
    model reads the batch norm otherwise, where it has hooks, or without kept
    statistics. Modules of classes other than PyTorch's are run once to see whether
    they compute as their base class does. An
    Identity takes the place of a batch-norm module; a functional batch norm gets
    parameters with which it does nothing in eval mode. Where it is told to, by the
    `training` flag of the module that calls it, it still takes the statistics of the
    batch: keep those modules (they are in the result) in eval mode during QAT.

    Args:
        model: changed in place. Its outputs in eval mode stay, up to rounding.
        input_shapes: shape of the input, or a list of shapes, one per input.
        dummy_input: an example input instead: a tensor, a tuple or list (positional)
            or a dict (keyword arguments).

    Returns:
        Pairs of the layer and the batch norm that is now part of it; for a functional
        op, the module that calls it.

    Raises:
        TypeError: `model` is not a module, or the input holds no tensor.
        ValueError: neither input_shapes nor dummy_input.
        RuntimeError: a quantized model, one that cannot be traced, or lazy modules
            without parameters yet. The model is as it was after any error.
    """
    read = read_model("fold_all_batch_norms", model, input_shapes, dummy_input)
    return [
        (fold.layer.module, fold.batch_norm.module) for fold in fold_into_layers(read)
    ]


def fold_all_batch_norms_to_scale(
    sim: QuantizationSimModel,
) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
    """Folds the batch norms of a calibrated or trained simulation, in place.

    The integers that the weights are quantized to stay, and so do the outputs: a
    channel's factor goes into the scale of its encoding. Only batch norms behind the
    layer fold so. Use it where QAT has trained the batch norms with the quantized
    weights; else fold the float model before a simulation is made of it.

    Args:
        sim: a simulation whose weights have one range per output channel.

    Returns:
        Pairs of the layer and the batch norm that is now part of it; what was the
        batch norm is an Identity that keeps its output quantizer.

    Raises:
        TypeError: not a simulation.
        RuntimeError: a weight with one range for all channels, or without a range; a
            quantizer between layer and batch norm. Nothing has been changed then.
    """
    if not isinstance(sim, QuantizationSimModel):
        raise TypeError(
            "fold_all_batch_norms_to_scale: a QuantizationSimModel is required, got "
            f"{type(sim).__name__}"
        )
    return [(fold.layer.module, fold.batch_norm.module) for fold in fold_to_scale(sim)]
