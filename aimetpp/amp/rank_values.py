# SPDX-License-Identifier: BSD-3-Clause
"""Plain values that tell the ranks of a search apart, as user code writes them."""

from __future__ import annotations

import os

_DEVICES = ("cuda", "xpu", "hpu", "mps")


def rank_values(rank: int) -> list[str]:
    """What a rank may have in the place of what another one has, as text: at the same
    index in both.

    Its number, its number on its machine (as torchrun tells it), either as text, as
    the name of a device, or whether it is the first one.

    Args:
        rank: of this process.
    """
    texts = []
    for number in (rank, int(os.environ.get("LOCAL_RANK", rank))):
        values: list[int | str] = [number, str(number), number == 0, number != 0]
        values += [f"{device}:{number}" for device in _DEVICES]
        texts += [repr(value) for value in values]
    return texts
