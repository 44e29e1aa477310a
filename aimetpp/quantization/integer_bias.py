# SPDX-License-Identifier: BSD-3-Clause
"""Biases as integer hardware adds them to its sums of products: 32-bit integers, in
steps of input scale x weight scale.
"""

from __future__ import annotations

from typing import Any

import torch

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
# The largest integer used here: 24 bits and zeros, so that the range's upper end is
# exact in float64, and the step that the op finds from both ends is the step.
_LARGEST = 2**31 - 128


def bias_step(
    input_scale: torch.Tensor, weight_scale: torch.Tensor, channels: int
) -> torch.Tensor | None:
    """The step of each bias, float32: one number, or [channels].

    Args:
        input_scale: one number.
        weight_scale: one number, or one per output channel; of a transposed convolution
            those of one group, which all groups repeat.
        channels: elements of the bias.

    Returns:
        None where the scales of the weight are not those of channels.
    """
    step = weight_scale.flatten().float() * input_scale.flatten().float()
    if step.numel() == 1:
        return step
    # Under torch.jit.trace sizes are tensors.
    groups, rest = divmod(int(channels), int(step.numel()))
    return None if rest else step.repeat(groups)


def _arguments(step: torch.Tensor) -> tuple[Any, ...]:
    """What the ops take behind the bias: in float64, which counts 32 bits."""
    wide = step.double()
    grid = torch.tensor([INT32_MIN, _LARGEST], device=step.device)
    axis = 0 if step.numel() > 1 else None
    return wide * INT32_MIN, wide * _LARGEST, grid, False, axis


def _fits(bias: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Whether 32 bits hold all of the bias: a bool, 0-dim."""
    return (bias.detach().abs().double() <= step.double() * _LARGEST).all()


def bias_integers(bias: torch.Tensor, step: torch.Tensor) -> torch.Tensor | None:
    """The integers of a bias, int64 [channels]; None where 32 bits do not hold them.

    Args:
        bias: [channels].
        step: as `bias_step` yields it.
    """
    if not _fits(bias, step):
        return None
    quantize = torch.ops.aimetpp.quantize
    return quantize(bias.detach().double(), *_arguments(step)).long()


def round_bias(bias: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """The bias on its grid, with straight-through gradients; as it is where 32 bits do
    not hold all of it.

    Args:
        bias: [channels].
        step: as `bias_step` yields it.
    """
    rounded = torch.ops.aimetpp.fake_quantize(bias, *_arguments(step))
    return torch.where(_fits(bias, step), rounded, bias)
