# SPDX-License-Identifier: BSD-3-Clause
"""Searches with replay: the scores of plain ones, whatever the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from amp_models import CANDIDATES, choose, make_sim
from replay_models import RAN, rows
from test_replaying import BUDGET, make

from aimetpp.amp.evaluation import EvalCallbackFactory, Metric
from aimetpp.amp.evaluator import STREAM_SIZE
from aimetpp.mixed_precision import choose_mixed_precision


def searched(folder: Path, budget: int, batches: list[torch.Tensor]) -> Any:
    """The result of a search by SQNR, and the layers that have run."""
    sim, x = make("chain")
    sim.compute_encodings(lambda model: [model(batch) for batch in batches])
    metric = EvalCallbackFactory(batches).sqnr(None, None)
    RAN.clear()
    result = choose_mixed_precision(
        *(sim, x, CANDIDATES, metric, metric, None, folder / f"{budget}", True, None),
        memory_budget=budget,
    )
    alone = [(str(s.group), s.candidate, s.score) for s in result.sensitivities]
    points = [(point.cost, point.score) for point in result.points]
    return alone, points, result.summary.evaluations, len(RAN)


def test_built_in_metrics_go_batch_by_batch_where_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget for the activations of one batch of 8 serves all of them."""
    batches = [rows(i, 8) for i in range(4, 12)]
    streams: list[int] = []
    stream = Metric.stream

    def noted(self: Any, sim: Any, settings: Any, begin: Any) -> list[float]:
        streams.append(len(settings))
        return stream(self, sim, settings, begin)

    monkeypatch.setattr(Metric, "stream", noted)
    one_batch = 7 * 11 * 8 * 4
    plain, all_kept = (searched(tmp_path, b, batches) for b in (0, BUDGET))
    # With no memory at all it would save nothing, but what it gives is the same.
    assert plain[:3] == all_kept[:3]
    streams.clear()
    streamed = searched(tmp_path, one_batch, batches)
    assert streamed[:3] == plain[:3]
    assert sum(streams) > 4 and max(streams) <= STREAM_SIZE
    assert all_kept[3] < streamed[3] < plain[3]


def test_a_search_that_goes_batch_by_batch_can_be_interrupted(tmp_path: Path) -> None:
    batches = [rows(i, 8) for i in range(4, 8)]
    sim, x = make("chain")
    sim.compute_encodings(lambda model: [model(batch) for batch in batches])
    metric = EvalCallbackFactory(batches).sqnr(None, None)
    before = sim.precisions()

    def stop(phase: str, done: int, total: int) -> None:
        if phase == "front" and done > 2:
            raise KeyboardInterrupt

    arguments = (sim, x, CANDIDATES, metric, metric, None, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        choose_mixed_precision(
            *(*arguments, True, None), memory_budget=2000, progress=stop
        )
    assert sim.precisions() == before
    rest = choose_mixed_precision(*(*arguments, False, None), memory_budget=2000)
    assert rest.summary.evaluations["sensitivity"] == 0
    whole = searched(tmp_path, 2000, batches)
    assert [(point.cost, point.score) for point in rest.points] == whole[1]


@pytest.mark.parametrize("trace", [True, False])
def test_a_callback_that_writes_into_weights_is_not_replayed(
    tmp_path: Path, trace: bool
) -> None:
    """Each evaluation scores other weights, with and without replay the same ones."""
    x = rows(4, 8)

    def evaluate(model: Any) -> float:
        score = float(model(x).square().mean())
        bias = model.b.bias.data if not trace else model.b.bias
        bias.add_(0.125)
        return score

    found = []
    for budget in (0, BUDGET):
        sim, _ = make("chain")
        result = choose_mixed_precision(
            *(sim, x, CANDIDATES, evaluate, evaluate, None),
            *(tmp_path / f"{budget}", True, None),
            memory_budget=budget,
        )
        alone = [(str(s.group), s.candidate, s.score) for s in result.sensitivities]
        found.append((alone, [(point.cost, point.score) for point in result.points]))
    assert found[0] == found[1]
    assert len({score for _, score in found[0][1]}) > 2


def test_a_search_gives_the_same_with_and_without(tmp_path: Path) -> None:
    found = []
    for budget in (0, None, 3000):
        sim = make_sim()
        result = choose(sim, tmp_path, memory_budget=budget)
        points = [(point.cost, point.score) for point in result.points]
        alone = [(str(s.group), s.candidate, s.score) for s in result.sensitivities]
        found.append((list(result), points, alone, sim.precisions()))
    assert found[0] == found[1] == found[2]
    assert len(found[0][1]) > len(CANDIDATES)


@pytest.mark.parametrize(
    ("budget", "error", "match"),
    [
        (-1, ValueError, "memory_budget must not be negative, got -1"),
        (1.5, TypeError, "memory_budget must be a number of bytes or None, got 1.5"),
        (True, TypeError, "memory_budget must be a number of bytes"),
    ],
)
def test_wrong_budgets(tmp_path: Path, budget: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        choose(make_sim(), tmp_path, memory_budget=budget)
