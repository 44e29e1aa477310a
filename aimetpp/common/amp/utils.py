# SPDX-License-Identifier: BSD-3-Clause
"""Definitions of automatic mixed precision."""

from __future__ import annotations

from enum import IntEnum


class AMPSearchAlgo(IntEnum):
    """How phase 2 looks for the cheapest point within the allowed drop.

    BruteForce evaluates the walk's points from the start until the score falls
    below the target. Binary halves the walk, Interpolation guesses by the scores;
    both take scores to fall along the walk.
    """

    BruteForce = 1
    Interpolation = 2
    Binary = 3
