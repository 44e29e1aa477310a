# SPDX-License-Identifier: BSD-3-Clause
"""Batch norms as what they are in evaluation: a factor and a shift per channel."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from aimetpp import _C
from aimetpp.ptq.layers import Layer, find_layer
from aimetpp.ptq.probing import adds_bias, is_affine, pads, scales_as_layer
from aimetpp.ptq.reading import ReadModel, replace_module, unchanged_on_error
from aimetpp.ptq.tensor_reads import read_more_than_once


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

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Its statistics and parameters."""
        given = (self.mean, self.var, self.weight, self.bias)
        return [tensor for tensor in given if tensor is not None]

    def has_any(self, ids: Container[int]) -> bool:
        """Whether one of its tensors is among these."""
        return any(id(tensor) in ids for tensor in self.tensors)

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
        found = BatchNorm(module, True, *tensors, bound.eps)
        # What was computed for this call cannot be changed; what is shared must not.
        own = read.tensor_ids - read.overlapping
        return found if all(id(tensor) in own for tensor in found.tensors) else None
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
    batch_norm_shape: tuple[int, ...]  # of the batch norm's input, as traced
    # Of what comes out of the batch norm, which has no parameters once it is folded.
    moments: tuple[torch.Tensor, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.moments = self.batch_norm.moments()

    def is_exact(self) -> bool:
        """False where the layer cannot compute the same without the batch norm."""
        module = self.batch_norm.module
        factor, shift = self.batch_norm.affine()
        if not self.batch_norm.functional and (
            # They would be lost with the module.
            module._forward_hooks
            or module._forward_pre_hooks
            or not is_affine(module, factor, shift, self.batch_norm_shape)
        ):
            return False
        if not scales_as_layer(self.layer):
            return False
        if not bool(shift.any()):
            return True
        return adds_bias(self.layer) and not (self.forward and pads(self.layer))

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
    found = []
    for layer_op, batch_norm_op, forward in _pairs(read.graph):
        layer = find_layer(read, layer_op)
        batch_norm = find_batch_norm(read, batch_norm_op)
        if layer is None or batch_norm is None:
            continue
        tensor = read.graph.ops[batch_norm_op].inputs[0]
        shape = tuple(read.graph.tensors[tensor].shape)
        fold = Fold(layer, batch_norm, forward, shape)
        if may_fold is None or may_fold(fold):
            found.append(fold)
    shared = _read_elsewhere(read, [fold.batch_norm for fold in found])
    folds: dict[tuple[int, int], Fold] = {}
    for fold in found:
        # A module that is called twice is folded once.
        key = (id(fold.layer.weight), id(fold.batch_norm.mean))
        if key not in folds and not fold.batch_norm.has_any(shared) and fold.is_exact():
            folds[key] = fold
    return list(folds.values())


def _read_elsewhere(read: ReadModel, batch_norms: list[BatchNorm]) -> set[int]:
    """Ids of tensors that something else than their batch norm reads: the code of the
    model, or another batch norm.
    """
    if not batch_norms:
        return set()
    tensors = [tensor for each in batch_norms for tensor in each.tensors]
    modules = {each.module for each in batch_norms if not each.functional}
    return read_more_than_once(read.model, read.dummy_input, tensors, modules)


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
    with unchanged_on_error(read.model):
        for fold in folds:
            fold.apply()
            fold.batch_norm.remove_from(read.model)
    return folds
