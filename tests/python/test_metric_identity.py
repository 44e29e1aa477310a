# SPDX-License-Identifier: BSD-3-Clause
"""Which changes of a metric make it another one."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from amp_models import Closeness, images
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from aimetpp.amp.evaluation import EvalCallbackFactory
from aimetpp.amp.metric_identity import metric_identity
from aimetpp.common.defs import CallbackFunc


def test_identities_tell_metrics_apart() -> None:
    def make(top_k: int) -> Callable[[Any], float]:
        counted = 0

        def metric(model: Any) -> float:
            nonlocal counted
            counted += 1
            return float(top_k)

        return metric

    one = make(1)
    name = metric_identity(one)
    one(None)
    assert metric_identity(one) == name  # its own counter is not what it measures
    assert metric_identity(make(1)) == name
    assert metric_identity(make(5)) != name
    assert metric_identity(lambda model: 1.0) != metric_identity(lambda model: 2.0)
    assert metric_identity(CallbackFunc(one, 1)) != metric_identity(
        CallbackFunc(one, 2)
    )
    for less, more in (([1], [2]), ({"n": 1}, {"n": 2}), ({"n": 1}, {"m": 1})):
        same = metric_identity(CallbackFunc(one, less))
        assert same == metric_identity(CallbackFunc(one, less))
        assert same != metric_identity(CallbackFunc(one, more))
    partial = functools.partial
    assert metric_identity(partial(one, k=1)) != metric_identity(partial(one, k=2))
    assert metric_identity(Closeness()) == metric_identity(Closeness())


_BATCHES: list[tuple[torch.Tensor, int]] = []


def over_global_batches(model: Any) -> float:
    return float(sum(model(x).sum() for x, _ in _BATCHES))


class TopK:
    def __init__(self, k: int) -> None:
        self.k = k
        self.calls = 0
        self.scores: list[float] = []

    def __call__(self, model: Any) -> float:
        self.calls += 1
        self.scores.append(float(self.k))
        return self.scores[-1]


def test_identities_follow_settings_and_not_counters() -> None:
    metric = TopK(1)
    name = metric_identity(metric)
    metric(None)
    assert metric_identity(metric) == name == metric_identity(TopK(1))
    assert metric_identity(TopK(2)) != name
    assert metric_identity(TopK(2).__call__) != metric_identity(metric.__call__)


def test_identities_follow_the_data_that_a_callback_reaches() -> None:
    def over(data: Any) -> Callable[[Any], float]:
        return lambda model: float(len(data))

    def loader(offset: float) -> DataLoader[Any]:
        return DataLoader(TensorDataset(images() + offset), batch_size=4)

    for make in (lambda x: images() + x, lambda x: [(images() + x, 1)], loader):
        assert metric_identity(over(make(0.0))) == metric_identity(over(make(0.0)))
        assert metric_identity(over(make(0.0))) != metric_identity(over(make(1.0)))
        bound = [CallbackFunc(Closeness(), make(x)) for x in (0.0, 1.0)]
        assert metric_identity(bound[0]) != metric_identity(bound[1])
    sqnr = [metric_identity(EvalCallbackFactory(loader(x)).sqnr()) for x in (0, 0, 1)]
    assert sqnr[0] == sqnr[1] != sqnr[2]
    _BATCHES[:] = [(images(), 1)]
    name = metric_identity(over_global_batches)
    assert metric_identity(over_global_batches) == name
    _BATCHES[:] = [(images() + 1, 1)]
    assert metric_identity(over_global_batches) != name
    other = Closeness()
    other.target = other.target + 1
    assert metric_identity(other) != metric_identity(Closeness())
    scores: list[float] = []
    name = metric_identity(over(scores))
    scores.append(1.0)
    assert metric_identity(over(scores)) == name


def test_identities_follow_globals(monkeypatch: pytest.MonkeyPatch) -> None:
    def metric(model: Any) -> float:
        return _helper() * float(FACTOR)

    name = metric_identity(metric)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3)
    assert metric_identity(metric) != name
    monkeypatch.undo()
    monkeypatch.setattr(sys.modules[__name__], "_helper", _other_helper)
    assert metric_identity(metric) != name


FACTOR = 2


def _helper() -> float:
    return 1.0


def _other_helper() -> float:
    return 1.5


def test_samplers_count() -> None:
    def over(**options: Any) -> Any:
        loader = DataLoader(TensorDataset(images()), **options)
        return metric_identity(lambda model: float(len(loader)))

    def sharded(rank: int) -> Any:
        return over(sampler=DistributedSampler(images(), 2, rank, shuffle=False))

    assert sharded(0) != sharded(1)
    assert sharded(0).name == sharded(1).name  # so that the error can say which value
    assert sharded(1).values["`rank` in DistributedSampler"] == "1"
    assert over() == over() != over(shuffle=True)
    subsets = [over(sampler=SubsetRandomSampler(range_)) for range_ in ([1, 2], [1, 3])]
    assert subsets[0] != subsets[1]
    batches = [over(batch_sampler=BatchSampler([0], 2, drop)) for drop in (True, False)]
    assert batches[0] != batches[1]


def test_identities_follow_defaults_and_arguments() -> None:
    def make(step: int) -> list[Any]:
        def first(model: Any, step: int = step) -> float:
            return float(step)

        def second(model: Any, *, step: int = step) -> float:
            return float(step)

        return [first, second, functools.partial(first, step=step)]

    for one, two in zip(make(1), make(2), strict=True):
        assert metric_identity(one) != metric_identity(two)
        places = metric_identity(one).values
        assert any(place.startswith("`step` in ") for place in places)
    given = CallbackFunc(over_global_batches, {"data": images(), "ranks": [0, 1]})
    assert metric_identity(given).values == {
        "`args['ranks'][0]` in CallbackFunc(over_global_batches)": "0",
        "`args['ranks'][1]` in CallbackFunc(over_global_batches)": "1",
    }
