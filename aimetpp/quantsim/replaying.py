# SPDX-License-Identifier: BSD-3-Clause
"""A simulation's forwards with only what changed computed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aimetpp.nn.replay import Replay
from aimetpp.nn.runtime import STATE

if TYPE_CHECKING:
    from aimetpp import _C
    from aimetpp.quantsim.bank import QuantizerBank


class ReplayMethods:
    """The part of QuantizationSimModel that keeps activations between forwards."""

    model: torch.nn.Module
    graph: _C.OpGraph
    placement: _C.Placement
    _bank: QuantizerBank

    @contextlib.contextmanager
    def replaying(self, memory_budget: int | None = None) -> Iterator[Replay]:
        """Within the context, forwards of `model` without gradients keep activations,
        and compute only what other precisions or ranges change. Their outputs are bit
        for bit those that they would be.

        Args:
            memory_budget: bytes that may be kept; None: a quarter of what is free on
                the model's device.
        """
        if memory_budget is None:
            memory_budget = free_memory(self.model) // 4
        slots: list[list[tuple[dict[str, Any], str]]] = [
            [(slot.container._modules, slot.key) for slot in entry.slots]
            for entry in self._bank.entries
        ]
        replay = Replay(
            self.model,
            self.graph,
            self.placement,
            slots,
            self.quantizers_off,  # type: ignore[attr-defined]
            memory_budget,
        )
        outer, STATE.replay = STATE.replay, replay
        try:
            yield replay
        finally:
            STATE.replay = outer


def free_memory(model: torch.nn.Module) -> int:
    """Bytes that are free on the device of a model's first parameter."""
    parameter = next(model.parameters(), None)
    if parameter is not None and parameter.is_cuda:
        return int(torch.cuda.mem_get_info(parameter.device)[0])
    free = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):  # with what the page cache would give
            free = [int(line.split()[1]) * 1024]
    # A container's own limit.
    limit = _lines("/sys/fs/cgroup/memory.max")
    used = _lines("/sys/fs/cgroup/memory.current")
    if limit and used and limit[0].isdigit():
        free.append(int(limit[0]) - int(used[0]))
    return max(min(free), 0)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").split("\n")
    except OSError:  # not Linux, or no limits
        return []
