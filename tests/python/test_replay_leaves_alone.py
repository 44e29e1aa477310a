# SPDX-License-Identifier: BSD-3-Clause
"""What replay leaves as it is: how often models with state run, whoever calls after an
error, and memory that goes back.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from amp_models import CANDIDATES
from replay_models import Chain, rows
from test_replaying import (
    BUDGET,
    make,
    run,
    same,
    simulation,
    with_changes,
)
from torch import nn

from aimetpp.amp.evaluation import EvalCallbackFactory
from aimetpp.mixed_precision import choose_mixed_precision

COUNTS = {"forwards": 0}
FORWARDS: deque[int] = deque()  # not looked into


class CountingFrame(Chain):
    """State out of the model, which its own forward keeps and uses."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        FORWARDS.append(1)
        COUNTS["forwards"] = (COUNTS["forwards"] + 1) % 7
        return super().forward(x) * (1 + 0.01 * COUNTS["forwards"])


class UnseenFrame(Chain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        FORWARDS.append(1)
        return super().forward(x) * (1 + 0.01 * (len(FORWARDS) % 7))


class CountingLeaf(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        FORWARDS.append(1)
        COUNTS["forwards"] = (COUNTS["forwards"] + 1) % 7
        return x * (1 + 0.01 * COUNTS["forwards"])


class WithCountingLeaf(Chain):
    def __init__(self) -> None:
        super().__init__()
        self.count = CountingLeaf()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.count(x))


@pytest.mark.parametrize("budget", [BUDGET, 2000])
@pytest.mark.parametrize("own_callback", [True, False])
@pytest.mark.parametrize("model", [CountingFrame, UnseenFrame, WithCountingLeaf])
def test_models_with_state_outside_are_run_as_often_and_in_the_same_order(
    tmp_path: Path, model: type[nn.Module], own_callback: bool, budget: int
) -> None:
    batches = [rows(i, 8) for i in range(4, 8)]
    found = []
    for memory in (0, budget):
        torch.manual_seed(0)
        COUNTS["forwards"] = 0
        FORWARDS.clear()
        sim = simulation(model(), batches[0])
        references = [torch.tanh(batch) for batch in batches]

        def evaluate(m: Any, references: Any = references) -> float:
            pairs = zip(batches, references, strict=True)
            return -sum(float((m(x) - y).square().mean()) for x, y in pairs)

        metric = EvalCallbackFactory(batches).sqnr(None, None)
        callback = evaluate if own_callback else metric
        COUNTS["forwards"] = 0
        FORWARDS.clear()
        result = choose_mixed_precision(
            *(sim, batches[0], CANDIDATES, callback, callback, None),
            *(tmp_path / f"{memory}", True, None),
            memory_budget=memory,
        )
        alone = [(str(s.group), s.candidate, s.score) for s in result.sensitivities]
        points = [(point.cost, point.score) for point in result.points]
        found.append((alone, points, len(FORWARDS)))
    assert found[0] == found[1]


def test_forwards_are_run_as_often_as_without_replay() -> None:
    """Around full precision, too, nothing is run but what is asked for."""
    torch.manual_seed(0)
    x = rows(5, 8)
    sim = simulation(CountingFrame(), x)
    for around_float in (False, True):
        FORWARDS.clear()
        with sim.replaying(BUDGET) as replay:
            replay.around_float = around_float
            for site in ("a", "b", "c", "b", "a"):
                sim.apply_precisions(["fp32"] * len(sim.precisions()))
                with_changes(sim, {f"{site}.weight": "int4"})
                run(sim.model, x)
        assert len(FORWARDS) == 5


def test_an_exception_in_the_middle_leaves_nothing_half_done() -> None:
    sim, x = make("in place")
    with_changes(sim, {"conv2.weight": "int8"})
    expected = run(sim.model, x)
    conv3 = sim.model.conv3
    with sim.replaying(BUDGET):
        for _ in range(4):
            run(sim.model, x)
        for precision in ("int4", "int8"):
            with_changes(sim, {"conv2.weight": precision})
            hold, conv3.padding = conv3.padding, "nothing"
            with pytest.raises((RuntimeError, TypeError, ValueError)):
                run(sim.model, x)
            conv3.padding = hold
        for _ in range(3):
            assert same(run(sim.model, x), expected)
