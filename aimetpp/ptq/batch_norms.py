# SPDX-License-Identifier: BSD-3-Clause
"""Batch norms as what they are in evaluation: a factor and a shift per channel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from aimetpp import _C
from aimetpp.ptq.layers import Layer, find_layer
from aimetpp.ptq.reading import ReadModel, replace_module


@dataclass
class BatchNorm:
    """A batch norm with kept statistics: a module's or a functional one's."""

    module: Any  # for a functional one the module that calls it
    functional: bool
    mean: torch.Tensor
    var: torch.Tensor
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    eps: float

    def affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Factor and shift of each channel, float64: y = x * factor + shift."""
        factor = (self.var.double() + self.eps).rsqrt()
        if self.weight is not None:
            factor = factor * self.weight.detach().double()
        shift = -self.mean.double() * factor
        if self.bias is not None:
            shift = shift + self.bias.detach().double()
        return factor, shift

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of what comes out of each channel, float64."""
        zeros = torch.zeros_like(self.mean, dtype=torch.float64)
        mean = zeros if self.bias is None else self.bias.detach().double()
        weight = zeros + 1 if self.weight is None else self.weight.detach().double()
        return mean.clone(), weight.abs()

    def has_no_effect(self) -> bool:
        """True of a functional one that has been folded."""
        factor, shift = self.affine()
        return bool(((factor - 1).abs() < 1e-6).all()) and not bool(shift.any())

    def remove_from(self, model: torch.nn.Module) -> None:
        """Makes it do nothing: an Identity takes the module's place; a functional one
        keeps being called, with parameters that change nothing.
        """
        if not self.functional:
            replace_module(model, self.module, torch.nn.Identity())
            return
        with torch.no_grad():
            self.mean.zero_()
            self.var.fill_(1 - self.eps)
            if self.weight is not None:
                self.weight.fill_(1)
            if self.bias is not None:
                self.bias.zero_()


def find_batch_norm(read: ReadModel, op: int) -> BatchNorm | None:
    """The batch norm that an op is; None where it normalizes with the statistics of
    the batch itself, or where its own are not known.
    """
    call = read.graph.ops[op].call
    module: Any = read.module_of(op)
    if read.graph.calls[call].functional:
        bound = read.batch_norm_calls.get(call)
        if bound is None or bound.mean is None or bound.var is None:
            return None
        tensors = (bound.mean, bound.var, bound.weight, bound.bias)
        return BatchNorm(module, True, *tensors, bound.eps)
    return module_batch_norm(module)


def module_batch_norm(module: Any) -> BatchNorm | None:
    """What a batch-norm module computes; None as for `find_batch_norm`."""
    frozen = type(module).__name__.endswith("FrozenBatchNorm2d")
    if not frozen and not isinstance(module, _BatchNorm):
        return None
    mean, var = (getattr(module, f"running_{what}", None) for what in ("mean", "var"))
    eps = getattr(module, "eps", None)
    if mean is None or var is None or eps is None:
        return None
    return BatchNorm(module, False, mean, var, module.weight, module.bias, eps)


@dataclass
class Fold:
    """A batch norm that a layer takes over: the one before it, or the one behind."""

    layer: Layer
    batch_norm: BatchNorm
    forward: bool
    # Of what comes out of the batch norm, which has no parameters once it is folded.
    moments: tuple[torch.Tensor, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.moments = self.batch_norm.moments()

    def is_exact(self) -> bool:
        """False where the layer cannot compute the same without the batch norm."""
        _, shift = self.batch_norm.affine()
        if not bool(shift.any()):
            return True
        if not self.layer.can_have_bias:
            return False
        return not self.forward or not self._pads_with_zeros()

    def _pads_with_zeros(self) -> bool:
        """Zeros that a layer pads with do not pass through the batch norm before it."""
        module = self.layer.module
        if self.layer.functional:
            return self.layer.weight.dim() > 2  # the padding is not known
        if not isinstance(module, torch.nn.modules.conv._ConvNd):
            return False
        if module.padding_mode != "zeros" or module.padding == "valid":
            return False
        if module.padding == "same":
            return any(size > 1 for size in module.kernel_size)
        return any(module.padding)

    def apply(self) -> None:
        """Changes the layer's weight and bias; the batch norm is left as it is."""
        factor, shift = self.batch_norm.affine()
        has_shift = bool(shift.any())
        if self.forward:
            if has_shift:
                self.layer.add_to_bias(self.layer.response(shift))
            self.layer.scale_inputs(factor)
        else:
            self.layer.scale_outputs(factor)
            if has_shift:
                self.layer.add_to_bias(shift)


def find_folds(
    read: ReadModel, may_fold: Callable[[Fold], bool] | None = None
) -> list[Fold]:
    """Every batch norm of the model that folds without changing what it computes.

    Args:
        read: the model.
        may_fold: what else a fold must fulfil.
    """
    folds = []
    statistics: Counter[int] = Counter()
    for op, node in enumerate(read.graph.ops):
        if node.onnx_type == "BatchNormalization" and node.call >= 0:
            batch_norm = find_batch_norm(read, op)
            if batch_norm is not None and batch_norm.functional:
                statistics[id(batch_norm.mean)] += 1
    seen = set()
    for layer_op, batch_norm_op, forward in _pairs(read.graph):
        layer = find_layer(read, layer_op)
        batch_norm = find_batch_norm(read, batch_norm_op)
        if layer is None or batch_norm is None:
            continue
        shared = statistics[id(batch_norm.mean)] > int(batch_norm.functional)
        key = (id(layer.weight), id(batch_norm.mean))
        fold = Fold(layer, batch_norm, forward)
        if may_fold is not None and not may_fold(fold):
            continue
        # A module that is called twice is folded once.
        if not shared and key not in seen and fold.is_exact():
            seen.add(key)
            folds.append(fold)
    return folds


def _pairs(graph: _C.OpGraph) -> Iterator[tuple[int, int, bool]]:
    for layer, batch_norm in _C.foldable_batch_norms(graph):
        yield layer, batch_norm, False
    for batch_norm, layer in _C.forward_foldable_batch_norms(graph):
        yield layer, batch_norm, True


def fold_into_layers(
    read: ReadModel, may_fold: Callable[[Fold], bool] | None = None
) -> list[Fold]:
    """Folds every batch norm that `find_folds` finds, in place.

    Args:
        read: the model.
        may_fold: what else a fold must fulfil.
    """
    folds = find_folds(read, may_fold)
    for fold in folds:
        fold.apply()
        fold.batch_norm.remove_from(read.model)
    return folds
