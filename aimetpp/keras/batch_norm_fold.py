# SPDX-License-Identifier: BSD-3-Clause
"""Batch-norm folding of Keras models."""

from __future__ import annotations

from typing import Any

import keras

from aimetpp.keras.cores import channel_axis, give_back
from aimetpp.keras.models import attach, check_model, copied, dummy_of, layers_of
from aimetpp.ptq.batch_norms import Fold, fold_into_layers
from aimetpp.ptq.reading import read_model

__all__ = ["fold_all_batch_norms"]


def fold_all_batch_norms(
    model: Any, *, dummy_input: Any = None
) -> tuple[list[tuple[Any, Any]], Any]:
    """Folds batch norms into the layers before or behind them.

    A batch norm folds where its axis is the output channels of the layer before it, or
    the input channels of the layer behind it.

    Args:
        model: a built Functional or Sequential model; left as it is.
        dummy_input: an example input; by default random values in the shapes of the
            model's inputs.

    Returns:
        Pairs of the layer (of the new model) and the batch norm (of `model`) that is
        now part of it, and the new model. It has an Identity of the same name in the
        place of each folded batch norm, and computes what `model` does in inference,
        up to rounding.

    Raises:
        TypeError: not a Keras model.
        ValueError: an unbuilt or subclassed model.
        RuntimeError: Keras on another backend; a model that cannot be traced.
    """
    check_model(model, "fold_all_batch_norms")
    dummy_input = dummy_of(model, dummy_input)
    work = copied(model)
    cores = attach(work, share=False)
    original = dict(zip(layers_of(work), layers_of(model), strict=True))
    read = read_model("fold_all_batch_norms", work, None, dummy_input)

    def may_fold(fold: Fold) -> bool:
        layer, batch_norm = fold.layer.module, fold.batch_norm.module
        if layer not in cores or batch_norm not in cores:  # computed op by op
            return False
        return channel_axis(layer) == channel_axis(batch_norm)

    folds = [
        (fold.layer.module, original[cores[fold.batch_norm.module]])
        for fold in fold_into_layers(read, may_fold)
    ]
    core_of = {original[cores[core]]: core for core, _ in folds}
    gone = {batch_norm for _, batch_norm in folds}

    def new_layer(layer: Any) -> Any:
        if layer in gone:
            return keras.layers.Identity(name=layer.name)
        config = layer.get_config()
        if layer in core_of:
            config["use_bias"] = core_of[layer].bias is not None
        return type(layer).from_config(config)

    folded = copied(model, new_layer)
    new_of = dict(zip(layers_of(model), layers_of(folded), strict=True))
    for layer, new in new_of.items():
        if layer in core_of:
            give_back(core_of[layer], new)
        elif layer not in gone:
            new.set_weights(layer.get_weights())
    pairs = [(new_of[original[cores[core]]], norm) for core, norm in folds]
    return pairs, folded
