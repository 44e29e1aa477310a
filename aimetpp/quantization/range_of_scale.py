# SPDX-License-Identifier: BSD-3-Clause
"""Scale -> range: the ends, in float32, from which the formula yields a given scale."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

# How far, in float32 neighbours, the ends of a range are moved to meet a scale.
_MAX_NUDGE = 4


def range_of_scale(
    low: torch.Tensor,
    high: torch.Tensor,
    scale: torch.Tensor,
    scale_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """A range, moved by single float32 steps until it gives `scale`.

    The ends of a grid, rounded to float32, may give a scale that is one unit in the
    last place off. Where no small step meets it, the ends stay.

    Args:
        low: float32, one element per range.
        high: the same.
        scale: the same.
        scale_of: the scale that a range (low, high) gives.
    """
    best_low, best_high = low.clone(), high.clone()
    open_channels = torch.ones_like(scale, dtype=torch.bool)
    for high_steps, low_steps in _nudges():
        candidate_low, candidate_high = _moved(low, low_steps), _moved(high, high_steps)
        met = open_channels & (scale_of(candidate_low, candidate_high) == scale)
        best_low[met], best_high[met] = candidate_low[met], candidate_high[met]
        open_channels &= ~met
        if not open_channels.any():
            break
    return best_low, best_high


def _nudges() -> Sequence[tuple[int, int]]:
    """Steps of (high, low), the smallest first."""
    reach = range(-_MAX_NUDGE, _MAX_NUDGE + 1)
    return sorted(itertools.product(reach, reach), key=lambda s: abs(s[0]) + abs(s[1]))


def _moved(values: torch.Tensor, steps: int) -> torch.Tensor:
    """`values` moved by that many representable numbers; zero stays."""
    towards = torch.full_like(values, float("inf") if steps > 0 else float("-inf"))
    moved = values
    for _ in range(abs(steps)):
        moved = torch.nextafter(moved, towards)
    return torch.where(values == 0, values, moved)
