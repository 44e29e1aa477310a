# SPDX-License-Identifier: BSD-3-Clause
"""The demo's comparison table, with what in it is noise."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Setting:
    """A precision for every quantizer, and how it did.

    Attributes:
        name: "chosen", "A8W4".
        bit_ops: absolute, per sample.
        correct: for each test image, whether the answer was right. Bool [N].
    """

    name: str
    bit_ops: float
    correct: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1."""
        return float(self.correct.mean())


def difference_in_points(a: Setting, b: Setting) -> tuple[float, float]:
    """Accuracy of `a` minus that of `b`, and its noise, both in points (percent).

    The two answered the same images, so only images on which one is right and the
    other wrong count; two standard errors of their balance are called noise
    (McNemar 1947).
    """
    count = len(a.correct)
    wins = int((a.correct & ~b.correct).sum())
    losses = int((b.correct & ~a.correct).sum())
    return 100 * (wins - losses) / count, 200 * math.sqrt(wins + losses) / count


def verdict(chosen: Setting, other: Setting) -> str:
    """Whether the chosen setting beats one that costs no more."""
    points, noise = difference_in_points(chosen, other)
    if other.bit_ops > chosen.bit_ops:
        return "costs more"
    if points <= 0:
        return "NOT beaten"
    return "beaten" if points > noise else "beaten, but within the noise"


def format_comparison(
    chosen: Setting, others: Iterable[Setting], baseline_bit_ops: float
) -> str:
    """The chosen setting and others, by cost, the widest first.

    Args:
        chosen: the setting that the search chose.
        others: uniform settings.
        baseline_bit_ops: what relative bit-ops are relative to.
    """
    rows = sorted([chosen, *others], key=lambda s: (-s.bit_ops, s is chosen))
    lines = [f"{'setting':<8} {'bit-ops':>8} {'accuracy':>9}   chosen is better by"]
    for row in rows:
        cost = row.bit_ops / baseline_bit_ops
        text = f"{row.name:<8} {cost:8.4f} {row.accuracy:9.2%}"
        if row is chosen:
            lines.append(f"{text}   *")
            continue
        points, noise = difference_in_points(chosen, row)
        better = f"{points:+6.2f} points (noise {noise:.2f})"
        lines.append(f"{text}   {better}: {verdict(chosen, row)}")
    cheaper = [s for s in rows if s is not chosen and s.bit_ops <= chosen.bit_ops]
    beaten = [row for row in cheaper if verdict(chosen, row).startswith("beaten")]
    lines.append(
        f"The chosen point beats {len(beaten)} of the {len(cheaper)} uniform settings "
        "of equal or lower bit-ops."
    )
    lines.append(
        f"One of {len(chosen.correct)} images is {100 / len(chosen.correct):.2f} "
        "points; a difference below the noise (two standard errors) says nothing."
    )
    return "\n".join(lines)
