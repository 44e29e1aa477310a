# SPDX-License-Identifier: BSD-3-Clause
"""The journal of evaluations: going on, noticing changes, damaged files."""

from __future__ import annotations

import functools
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from amp_models import (
    A8W8,
    A16W16,
    Closeness,
    choose,
    images,
    make_sim,
)
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from aimetpp.amp.cache import READ_VALUES, EvaluationCache
from aimetpp.amp.evaluation import EvalCallbackFactory
from aimetpp.amp.metric_identity import metric_identity
from aimetpp.amp.rank_values import rank_values
from aimetpp.common.amp.utils import AMPSearchAlgo
from aimetpp.common.defs import CallbackFunc

JOURNAL = Path(".cache") / "evaluations.jsonl"


@pytest.fixture(autouse=True)
def no_warnings() -> Any:
    """A warning that no test expects is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def test_second_run_evaluates_nothing_and_gives_the_same_list(tmp_path: Path) -> None:
    first = choose(make_sim(), tmp_path)
    files = (tmp_path / "pareto_list.json").read_text()
    assert first.evaluations > 0
    sim = make_sim()
    second = choose(sim, tmp_path, clean_start=False)
    assert second.evaluations == 0
    assert list(second) == list(first)
    assert (tmp_path / "pareto_list.json").read_text() == files
    assert sim.bit_ops() == pytest.approx(
        second.chosen.cost * second.summary.baseline_bit_ops
    )


@pytest.mark.parametrize("algo", list(AMPSearchAlgo))
@pytest.mark.parametrize("share", [0.0, 0.3, 1.1])
def test_drop_and_algorithm_may_change(
    algo: AMPSearchAlgo, share: float, tmp_path: Path
) -> None:
    """AMP's guide: look at the whole curve, then run again with a drop."""
    sim = make_sim()
    first = choose(sim, tmp_path)
    worst = abs(min(point.score for point in first.points))
    second = choose(  # the same sim, which is at the chosen point now
        sim, tmp_path, share * worst, clean_start=False, amp_search_algo=algo
    )
    assert second.evaluations == 0
    assert list(second) == list(first)
    assert second.sensitivities == first.sensitivities
    if share == 0.0:
        assert second.chosen is None
        assert set(sim.precisions()) == {"int16"}


def test_clean_start_evaluates_again(tmp_path: Path) -> None:
    first = choose(make_sim(), tmp_path)
    second = choose(make_sim(), tmp_path)
    assert second.evaluations == first.evaluations


@pytest.mark.parametrize("stop", [1, 5, 12])
def test_an_interrupted_run_goes_on(stop: int, tmp_path: Path) -> None:
    whole = choose(make_sim(), tmp_path / "whole")

    class Interrupted(Closeness):
        def __call__(self, model: torch.nn.Module) -> float:
            if self.calls == stop:
                raise KeyboardInterrupt
            return super().__call__(model)

    metric = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        choose(make_sim(), tmp_path, metric=metric)
    metric.calls = -1000  # the same metric, this time not interrupted
    rest = choose(make_sim(), tmp_path, clean_start=False, metric=metric)
    assert rest.evaluations == whole.evaluations - stop
    assert list(rest) == list(whole)


def other_weights(sim: Any, options: dict[str, Any]) -> None:
    with torch.no_grad():
        sim.model.fc.weight.mul_(1.5)


def other_calibration(sim: Any, options: dict[str, Any]) -> None:
    sim.compute_encodings(lambda model: model(3 * images()))


def other_range(sim: Any, options: dict[str, Any]) -> None:
    sim.model.fc.output_quantizers[0].set_range(-9.0, 9.0)


def other_candidates(sim: Any, options: dict[str, Any]) -> None:
    options["candidates"] = [A16W16, A8W8]


def other_metric(sim: Any, options: dict[str, Any]) -> None:
    options["metric"] = lambda model: 0.0


def other_groups(sim: Any, options: dict[str, Any]) -> None:
    options["exclude"] = "conv2"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (other_weights, "model, weights, config or calibration"),
        (other_calibration, "model, weights, config or calibration"),
        (other_range, "ranges set by hand"),
        (other_candidates, "candidates"),
        (other_metric, "phase-1 metric, phase-2 metric"),
        (other_groups, "quantizer groups"),
    ],
)
def test_defect_05_what_has_changed_is_named(
    change: Callable[[Any, dict[str, Any]], None], name: str, tmp_path: Path
) -> None:
    """AIMET reuses every score, and applies candidates that are gone."""
    choose(make_sim(), tmp_path)
    sim, options = make_sim(), {}
    change(sim, options)
    with pytest.warns(RuntimeWarning, match=f"with other .*{name}.* not used"):
        result = choose(sim, tmp_path, clean_start=False, **options)
    fresh_sim = make_sim()
    change(fresh_sim, options)
    fresh = choose(fresh_sim, tmp_path / "fresh", **options)
    assert result.evaluations == fresh.evaluations > 0
    assert [row[:2] for row in result] == [row[:2] for row in fresh]


def test_truncated_line_is_set_aside(tmp_path: Path) -> None:
    first = choose(make_sim(), tmp_path)
    journal = tmp_path / JOURNAL
    damaged = journal.read_bytes()[:-9]  # as kill -9 leaves it
    journal.write_bytes(damaged)
    with pytest.warns(RuntimeWarning, match="1 of its .* scores are damaged"):
        second = choose(make_sim(), tmp_path, clean_start=False)
    assert second.evaluations == 1
    assert list(second) == list(first)
    aside = tmp_path / ".cache" / "evaluations.damaged-1"
    assert aside.read_bytes() == damaged
    assert choose(make_sim(), tmp_path, clean_start=False).evaluations == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"score": ', '"score": 1', 1),
        lambda text: text.replace('"assignment": [', '"assignment": [0, ', 1),
        lambda text: text.replace("\n{", '\n{"phase": 3}\n{', 1),
        lambda text: text.replace("\n{", "\n\x00\ufffd{", 1),
        lambda text: text.replace("\n{", "\n[1, 2]\n{", 1),
    ],
)
def test_damaged_scores_are_not_trusted(
    damage: Callable[[str], str], tmp_path: Path
) -> None:
    first = choose(make_sim(), tmp_path)
    journal = tmp_path / JOURNAL
    text = journal.read_text()
    assert damage(text) != text
    journal.write_text(damage(text))
    with pytest.warns(RuntimeWarning, match="damaged"):
        second = choose(make_sim(), tmp_path, clean_start=False)
    assert list(second) == list(first)
    assert second.evaluations <= 1


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"{}\n", b"[]\n"])
def test_not_a_journal_is_set_aside(content: bytes, tmp_path: Path) -> None:
    journal = tmp_path / JOURNAL
    journal.parent.mkdir()
    journal.write_bytes(content)
    with pytest.warns(RuntimeWarning, match="first line is damaged"):
        result = choose(make_sim(), tmp_path, clean_start=False)
    assert result.evaluations > 0
    assert (journal.parent / "evaluations.damaged-1").read_bytes() == content


def test_journal_is_json_lines_and_keeps_infinities(tmp_path: Path) -> None:
    cache = EvaluationCache(tmp_path, {"candidates": [(1, 2)]}, clean_start=False)
    for index, score in enumerate((0.1 + 0.2, float("inf"), float("-inf"), -1e-300)):
        cache.put("front", [index, -1], score)
    again = EvaluationCache(tmp_path, {"candidates": [(1, 2)]}, clean_start=False)
    assert len(again) == 4
    assert again.get("front", [0, -1]) == 0.1 + 0.2
    assert again.get("front", [1, -1]) == float("inf")
    assert again.get("front", [2, -1]) == float("-inf")
    assert again.get("sensitivity", [0, -1]) is None
    for line in again.path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_metric_identitys_tell_metrics_apart() -> None:
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


def test_metric_identitys_follow_settings_and_not_counters() -> None:
    metric = TopK(1)
    name = metric_identity(metric)
    metric(None)
    assert metric_identity(metric) == name == metric_identity(TopK(1))
    assert metric_identity(TopK(2)) != name
    assert metric_identity(TopK(2).__call__) != metric_identity(metric.__call__)


def test_metric_identitys_follow_the_data_that_a_callback_reaches() -> None:
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


def test_metric_identitys_follow_globals(monkeypatch: pytest.MonkeyPatch) -> None:
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


def opened_by_rank_0(folder: Path, reads: dict[str, str], rank: int) -> EvaluationCache:
    """What `rank` makes of a journal that rank 0 has opened, reading 0 and 0.5."""
    begun = {"candidates": 1, READ_VALUES: {"`rank` in f": "0", "`share` in f": "0.5"}}
    first = EvaluationCache(folder, begun, True, None, rank_values(0))
    mine = {"candidates": 1, READ_VALUES: {**begun[READ_VALUES], **reads}}
    opened = ("rank 0", first.size())
    return EvaluationCache(folder, mine, False, opened, rank_values(rank))


def test_ranks_may_read_what_tells_them_apart(tmp_path: Path) -> None:
    same = opened_by_rank_0(tmp_path, {}, 1)
    assert same.opener == "rank 0" and same.differing == ""
    other = opened_by_rank_0(tmp_path, {"`rank` in f": "1"}, 1)
    assert other.differing == " (`rank` in f is 1 here and 0 there)"
    for reads, rank, match in (
        (
            {"`share` in f": "0.7"},
            1,
            "other `share` in f than .*0.7 here and 0.5 there",
        ),
        (
            {"`rank` in f": "1"},
            2,
            r"`rank` in f is 1 here and 0 there.*distributed=False",
        ),
        ({"`seed` in f": "3"}, 1, "`seed` in f is 3 here and missing there"),
    ):
        with pytest.raises(RuntimeError, match=match):
            opened_by_rank_0(tmp_path, reads, rank)


def test_another_rank_may_go_on_with_a_journal(tmp_path: Path) -> None:
    def journal(rank: int) -> EvaluationCache:
        fingerprint = {READ_VALUES: {"`device` in f": f"'cuda:{rank}'"}}
        return EvaluationCache(tmp_path, fingerprint, False, None, rank_values(rank))

    journal(1).put("front", [0], 0.5)
    assert journal(0).get("front", [0]) == 0.5


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
