# SPDX-License-Identifier: BSD-3-Clause
"""The data of the golden files, from arithmetic alone: the same everywhere."""

from __future__ import annotations

from typing import Any

import torch

MASK = 0xFFFFFFFF


def values(batch: dict[str, Any]) -> torch.Tensor:
    """The data of one batch.

    Args:
        batch: "shape"; "kind": "bell" (sum of four uniform numbers, within
            -2..2), "uniform" (0..1) or "constant" (0); "seed"; then "scale" and
            "shift" in this order; "set": pairs (flat index, value), where the
            value may be "inf" or "-inf".

    Returns:
        A float32 tensor of that shape.
    """
    count = 1
    for size in batch["shape"]:
        count *= size
    state = batch["seed"]

    def uniform() -> float:
        nonlocal state
        state = (state * 1664525 + 1013904223) & MASK
        return state / 4294967296.0

    numbers = []
    for _ in range(count):
        number = 0.0
        if batch["kind"] == "bell":
            number = uniform() + uniform() + uniform() + uniform() - 2.0
        elif batch["kind"] == "uniform":
            number = uniform()
        numbers.append(number * batch["scale"] + batch["shift"])
    for index, value in batch.get("set", []):
        numbers[index] = float(value)
    return torch.tensor(numbers, dtype=torch.float32).reshape(batch["shape"])


def batch(
    shape: list[int],
    seed: int,
    kind: str = "bell",
    scale: float = 1.0,
    shift: float = 0.0,
    **more: Any,
) -> dict[str, Any]:
    """One entry of a case's "batches"; see `values`."""
    return {
        "shape": shape,
        "seed": seed,
        "kind": kind,
        "scale": scale,
        "shift": shift,
        **more,
    }
