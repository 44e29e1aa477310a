# SPDX-License-Identifier: BSD-3-Clause
"""A simulation's forwards with only what changed computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from aimetpp import _C
from aimetpp.common.inference import device_of
from aimetpp.common.memory import free_memory
from aimetpp.nn.replay import Replay
from aimetpp.nn.runtime import STATE

if TYPE_CHECKING:
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
            memory_budget = free_memory(device_of(self.model)) // 4
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
