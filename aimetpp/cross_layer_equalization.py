# SPDX-License-Identifier: BSD-3-Clause
"""Cross-layer equalization: weight ranges made equal, with no data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from aimetpp.ptq.batch_norms import BatchNorm, fold_into_layers, module_batch_norm
from aimetpp.ptq.equalization import (
    Moments,
    equalize,
    find_chains,
    fold_high_biases,
    replace_relu6_modules,
)
from aimetpp.ptq.reading import ReadModel, read_model, unchanged_on_error

__all__ = ["equalize_bn_folded_model", "equalize_model"]


def equalize_model(
    model: torch.nn.Module,
    input_shapes: Sequence[Any] | None = None,
    dummy_input: Any = None,
    *,
    replace_relu6: bool = True,
    fold_high_bias: bool = True,
) -> list[tuple[str, ...]]:
    """Folds batch norms, equalizes weight ranges and folds high biases, in place.

    Along a chain such as conv, ReLU, depthwise conv, ReLU, conv, each channel gets the
    same range of weights in every layer, so that one range per layer loses little
    (Nagel et al. 2019). That leaves the outputs as they were. What does not:
    `replace_relu6`, where activations were above 6, and `fold_high_bias`, where
    channels are below their mean less 3 deviations, or the next layer pads with zeros.

    Args:
        model: changed in place.
        input_shapes: shape of the input, or a list of shapes, one per input.
        dummy_input: an example input instead, as for `fold_all_batch_norms`.
        replace_relu6: put a ReLU in the place of each ReLU6 module that stands, in all
            of its calls, between two layers that can be equalized then; any other
            ReLU6 keeps them apart.
        fold_high_bias: move high biases of layers that had a batch norm on.

    Returns:
        The names of the layers of each chain, in the order of the graph.

    Raises:
        TypeError, ValueError, RuntimeError: as `fold_all_batch_norms`.
    """
    read = read_model("equalize_model", model, input_shapes, dummy_input)
    by_weight: dict[int, Moments] = {}
    with unchanged_on_error(model):
        for fold in fold_into_layers(read):
            if not fold.forward:
                by_weight[id(fold.layer.weight)] = fold.moments
        read = read_model("equalize_model", model, input_shapes, dummy_input)
        return _equalize(read, by_weight, replace_relu6, fold_high_bias)


def equalize_bn_folded_model(
    model: torch.nn.Module,
    input_shapes: Sequence[Any] | None,
    folded_pairs: Iterable[tuple[Any, torch.nn.Module]],
    dummy_input: Any = None,
    *,
    replace_relu6: bool = True,
    fold_high_bias: bool = True,
) -> list[tuple[str, ...]]:
    """`equalize_model` for a model whose batch norms are folded already.

    Args:
        model: changed in place.
        input_shapes: as for `equalize_model`.
        folded_pairs: what `fold_all_batch_norms` returned.
        dummy_input: as for `equalize_model`.
        replace_relu6: as for `equalize_model`.
        fold_high_bias: as for `equalize_model`.

    Returns:
        The names of the layers of each chain, in the order of the graph.

    Raises:
        TypeError, ValueError, RuntimeError: as `fold_all_batch_norms`.
    """
    read = read_model("equalize_bn_folded_model", model, input_shapes, dummy_input)
    by_weight: dict[int, Moments] = {}
    for layer, module in folded_pairs:
        batch_norm: BatchNorm | None = module_batch_norm(module)
        weight = getattr(layer, "weight", None)
        if batch_norm is not None and weight is not None:
            by_weight[id(weight)] = batch_norm.moments()
    with unchanged_on_error(model):
        return _equalize(read, by_weight, replace_relu6, fold_high_bias)


def _equalize(
    read: ReadModel,
    by_weight: dict[int, Moments],
    replace_relu6: bool,
    fold_high_bias: bool,
) -> list[tuple[str, ...]]:
    chains = find_chains(read, replace_relu6)
    replace_relu6_modules(read, chains)
    factors = equalize(chains)
    if fold_high_bias:
        moments: dict[int, Moments] = {}
        for layer in (layer for chain in chains for layer in chain.layers):
            if id(layer.weight) in by_weight:
                mean, deviation = by_weight[id(layer.weight)]
                factor = factors[layer.op]
                moments[layer.op] = (mean.cpu() * factor, deviation.cpu() * factor)
        fold_high_biases(read, chains, moments)
    return [
        tuple(read.graph.ops[layer.op].name for layer in chain.layers)
        for chain in chains
    ]
