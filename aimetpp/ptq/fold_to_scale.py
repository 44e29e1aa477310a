# SPDX-License-Identifier: BSD-3-Clause
"""Folding the batch norms of a simulation into weights and their encodings."""

from __future__ import annotations

import torch

from aimetpp.nn.wrap import QuantizationMixin, become_identity
from aimetpp.ptq.batch_norms import Fold, find_folds
from aimetpp.ptq.layerwise import refresh_bias_range
from aimetpp.ptq.reading import ReadModel
from aimetpp.quantization import QuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel


def fold_to_scale(sim: QuantizationSimModel) -> list[Fold]:
    """Folds every batch norm that folds backward into a leaf module, in place."""
    # Functional batch norms are not among these: a simulation does not keep what
    # they read.
    with sim.quantizers_off():  # they may have no range yet
        found = find_folds(ReadModel(sim.model, sim.graph, {}, sim.dummy_input))
    folds = [
        fold
        for fold in found
        if not fold.forward and isinstance(fold.layer.module, QuantizationMixin)
    ]
    for fold in folds:
        _require_foldable(fold, _name_of(sim, fold.layer.module))
    for fold in folds:
        factor, _ = fold.batch_norm.affine()
        fold.apply()
        quantizers = fold.layer.module.param_quantizers
        weight = quantizers[fold.layer.weight_name]
        if isinstance(weight, QuantizeDequantize):
            _scale_range(weight, factor)
        refresh_bias_range(fold.layer)
        become_identity(fold.batch_norm.module)
    return folds


def _name_of(sim: QuantizationSimModel, module: torch.nn.Module) -> str:
    return next(name for name, other in sim.model.named_modules() if other is module)


def _require_foldable(fold: Fold, name: str) -> None:
    weight = fold.layer.module.param_quantizers[fold.layer.weight_name]
    if isinstance(weight, QuantizeDequantize):
        channels = fold.layer.out_channels
        if weight.min.numel() != channels or weight.block_size is not None:
            raise RuntimeError(
                "fold_all_batch_norms_to_scale: the weight of "
                f"{name!r} must have one range per output channel "
                f"({channels}), got shape {tuple(weight.min.shape)}; fold before "
                "the simulation is made instead, with fold_all_batch_norms"
            )
        if not weight.is_initialized():
            raise RuntimeError(
                f"fold_all_batch_norms_to_scale: {name}."
                f"{fold.layer.weight_name} has no range yet: run "
                "sim.compute_encodings(...) first"
            )
    between = (
        *fold.layer.module.output_quantizers,
        *fold.batch_norm.module.input_quantizers,
    )
    if any(quantizer is not None for quantizer in between):
        raise RuntimeError(
            f"fold_all_batch_norms_to_scale: the result of {name!r} is quantized "
            "before its batch norm"
        )


def _scale_range(quantizer: QuantizeDequantize, factor: torch.Tensor) -> None:
    """Multiplies each channel's range as its weights were, so that the integers stay.

    Where a factor is negative, the lowest integer of a symmetric grid, which has no
    counterpart above zero, becomes the highest. A channel of zeros keeps its range.
    """
    size = factor.abs().float().reshape(quantizer.min.shape).to(quantizer.min)
    size = torch.where(size == 0, torch.ones_like(size), size)
    low, high = quantizer.min.detach() * size, quantizer.max.detach() * size
    if not quantizer.symmetric:
        flipped = (factor < 0).reshape(size.shape).to(size.device)
        low, high = torch.where(flipped, -high, low), torch.where(flipped, -low, high)
    # What was kept is about the weights before.
    quantizer.statistics = None
    quantizer.set_range(low, high)
