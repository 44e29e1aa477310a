# SPDX-License-Identifier: BSD-3-Clause
"""Sums over batches that the built-in metrics are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree


class Accumulator:
    """Sums over batches, in float64."""

    def add(
        self, reference: list[torch.Tensor], output: list[torch.Tensor], labels: Any
    ) -> None:
        """Adds a batch: the outputs, and what they should be."""
        for expected, got in zip(reference, output, strict=True):
            self.add_pair(expected.double(), got.detach().cpu().double())

    def add_pair(self, reference: torch.Tensor, output: torch.Tensor) -> None:
        """Adds one output of a batch, in float64 on the CPU."""
        raise NotImplementedError

    def score(self) -> float:
        """Of all batches; higher is better."""
        raise NotImplementedError


class Sqnr(Accumulator):
    """Signal to noise, in dB."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def add_pair(self, reference: torch.Tensor, output: torch.Tensor) -> None:
        self.signal += float(reference.square().sum())
        self.noise += float((reference - output).square().sum())

    def score(self) -> float:
        if self.noise == 0:
            return math.inf
        if self.signal == 0:
            return -math.inf
        return 10 * math.log10(self.signal / self.noise)


class L2(Accumulator):
    """Minus the root mean square of the difference."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add_pair(self, reference: torch.Tensor, output: torch.Tensor) -> None:
        self.total += float((reference - output).square().sum())
        self.count += reference.numel()

    def score(self) -> float:
        return -math.sqrt(self.total / self.count)


class Distance(Accumulator):
    """Minus the mean Euclidean length of the difference, over samples and outputs."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add_pair(self, reference: torch.Tensor, output: torch.Tensor) -> None:
        difference = (reference - output).reshape(len(reference), -1)
        self.total += float(difference.norm(dim=1).sum())
        self.count += len(difference)

    def score(self) -> float:
        return -self.total / self.count


class Top1(Accumulator):
    """Share of samples whose highest output is that of the label."""

    def __init__(self) -> None:
        self.hits, self.count = 0, 0

    def add(
        self, reference: list[torch.Tensor], output: list[torch.Tensor], labels: Any
    ) -> None:
        if len(output) != 1 or output[0].dim() != 2:
            raise ValueError(
                "top1: one output of shape [samples, classes] is required, got "
                f"{[list(tensor.shape) for tensor in output]}; output_index chooses one"
            )
        if labels is None:
            raise TypeError("top1: batches must hold labels after the model's inputs")
        labels = torch.as_tensor(labels).cpu()
        self.hits += int((output[0].detach().cpu().argmax(1) == labels).sum())
        self.count += len(output[0])

    def score(self) -> float:
        return self.hits / self.count


class Kl(Accumulator):
    """Minus the mean divergence of the softmax."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.total, self.count = 0.0, 0

    def add_pair(self, reference: torch.Tensor, output: torch.Tensor) -> None:
        expected = reference.log_softmax(self.dim)
        got = output.log_softmax(self.dim)
        self.total += float((expected.exp() * (expected - got)).sum())
        self.count += reference.numel() // reference.shape[self.dim]

    def score(self) -> float:
        return -self.total / self.count


class Cosine(Accumulator):
    """Mean cosine over the samples."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add_pair(self, reference: torch.Tensor, output: torch.Tensor) -> None:
        expected, got = reference.flatten(1), output.flatten(1)
        lengths = expected.norm(dim=1) * got.norm(dim=1)
        cosine = (expected * got).sum(1) / lengths.where(lengths > 0, 1)
        both_zero = (expected == 0).all(1) & (got == 0).all(1)
        self.total += float(cosine.where(~both_zero, 1).sum())
        self.count += len(expected)

    def score(self) -> float:
        return self.total / self.count


class Loss(Accumulator):
    """Minus the mean of a user's loss, a function of tensors or of arrays."""

    def __init__(self, loss_fn: Callable[[Any, Any], Any]) -> None:
        self.loss_fn = loss_fn
        self.total, self.count = 0.0, 0

    def add(
        self, reference: list[torch.Tensor], output: list[torch.Tensor], labels: Any
    ) -> None:
        if labels is None:
            raise TypeError("loss: batches must hold labels after the model's inputs")
        got = [tensor.detach().cpu() for tensor in output]
        labels = pytree.tree_map(
            lambda x: x.cpu() if isinstance(x, torch.Tensor) else x, labels
        )
        value = self._loss(got[0] if len(got) == 1 else got, labels)
        size = len(got[0])
        mean = float(torch.as_tensor(value).double().mean())
        self.total += mean * size
        self.count += size

    def _loss(self, output: Any, labels: Any) -> Any:
        try:
            return self.loss_fn(output, labels)
        except (AttributeError, TypeError) as error:
            try:
                return self.loss_fn(*pytree.tree_map(_as_array, (output, labels)))
            except Exception:
                raise error from None  # not for want of arrays

    def score(self) -> float:
        return -self.total / self.count


def _as_array(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value
