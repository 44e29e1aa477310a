# SPDX-License-Identifier: BSD-3-Clause
"""How much a search will do, how much it does, and how it shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from amp_models import CANDIDATES, Closeness, choose, make_sim

from aimetpp.amp.estimate import PhaseEstimate, SearchEstimate
from aimetpp.amp.mixed_precision_algo import GreedyMixedPrecisionAlgo
from aimetpp.amp.progress import progress_reporter
from aimetpp.amp.results import format_pareto_table
from aimetpp.common.amp.utils import AMPSearchAlgo
from aimetpp.common.memory import PeakMemory
from aimetpp.mixed_precision import estimate_mixed_precision


def make_algo(folder: Path, metric: Any, **options: Any) -> GreedyMixedPrecisionAlgo:
    return GreedyMixedPrecisionAlgo(
        make_sim(),
        None,
        CANDIDATES,
        metric,
        metric,
        folder,
        True,
        None,
        progress=False,
        **options,
    )


@pytest.fixture(autouse=True)
def no_slow_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("result_files.write_pages", "mixed_precision_algo.export_alphas"):
        monkeypatch.setattr(f"aimetpp.amp.{name}", lambda *_args: None)


# Groups of the small model, which all have two steps, to 8 and to 4 bits.
GROUPS = len(make_sim().quantizer_groups())


def test_fewer_points_are_some_of_the_profile(tmp_path: Path) -> None:
    whole = choose(make_sim(), tmp_path / "whole")
    some = choose(make_sim(), tmp_path / "some", max_evaluations=3)
    assert len(some) == 3 and set(some) < set(whole)
    assert some[-1] == whole[-1]  # the narrowest
    assert some.summary.evaluations == {
        "sensitivity": 2 * GROUPS,
        "front": 2 + 3,
        "convert": 0,
    }
    assert len(some.skipped) + len(some) == len(whole) and not whole.skipped
    scores = {(row[0], row[2], row[3]): row[1] for row in whole}
    falling = [row[1] for row in whole]
    assert falling == sorted(falling, reverse=True)  # then the bounds hold
    for step in some.skipped:
        score = scores[step.cost, step.group, step.candidate]
        assert step.lowest <= score <= step.highest
    assert f"{len(some.skipped)} points of the walk" in format_pareto_table(some)


def test_more_points_later_evaluate_only_those(tmp_path: Path) -> None:
    choose(make_sim(), tmp_path, max_evaluations=3)
    metric = Closeness()
    more = choose(
        make_sim(), tmp_path, metric=metric, max_evaluations=5, clean_start=False
    )
    assert len(more) == 5 and metric.calls == 2


def test_reference_evaluations_stand_beside_ours(tmp_path: Path) -> None:
    result = choose(make_sim(), tmp_path)
    # AIMET: each group at two candidates; full precision, three uniform settings, a
    # point for each of the former, the choice once more.
    expected = {"sensitivity": 2 * GROUPS, "front": 1 + 3 + 2 * GROUPS + 1}
    assert result.summary.reference_evaluations == expected
    assert f"AIMET: up to {sum(expected.values())}" in format_pareto_table(result)
    info = dict(json.loads((tmp_path / "amp_info_list.json").read_text()))
    assert info["phase2 eval count of AIMET"] == expected["front"]
    assert info["phase2 eval count"] == expected["front"] - 3


def test_estimate_counts_what_the_search_then_does(tmp_path: Path) -> None:
    metric = Closeness()
    algo = make_algo(tmp_path, metric)
    before = algo._sim.precisions()
    estimate = algo.estimate(None)
    assert algo._sim.precisions() == before
    sensitivity, front = (estimate.phases[name] for name in ("sensitivity", "front"))
    spent = metric.calls
    # Full precision, baseline; 2 moves until replay saves what it can, 4 that are
    # timed; 4 steps of a walk that is not the search's.
    assert spent == 2 + 2 + 4 + 4
    assert (sensitivity.least, sensitivity.most) == (2 * GROUPS - 6,) * 2
    assert (front.least, front.most) == (GROUPS, 2 * GROUPS)
    assert sensitivity.known == front.known == 0
    assert sensitivity.peak_bytes > 1e6 and front.seconds_each > 0
    result = algo.run(None)
    assert metric.calls - spent == sensitivity.most + front.most
    assert result.summary.estimated_seconds == estimate.seconds_most
    again = algo.estimate(None)
    assert metric.calls - spent == sensitivity.most + front.most
    assert again.seconds == (0, 0) and again.phases["front"].known == 2 * GROUPS + 2


def test_estimate_of_a_target(tmp_path: Path) -> None:
    algo = make_algo(tmp_path, Closeness(), convert_op_reduction=True)
    estimate = algo.estimate(0.1, AMPSearchAlgo.BruteForce)
    front, convert = estimate.phases["front"], estimate.phases["convert"]
    assert (front.least, front.most) == (0, 1 + 2 * GROUPS)
    assert (estimate.phases["sensitivity"].least, convert.most) == (0, 5)
    result = algo.run(0.1, AMPSearchAlgo.BruteForce)
    assert result.summary.evaluations["front"] <= front.most


def test_estimate_in_one_call(tmp_path: Path) -> None:
    metric = Closeness()
    estimate = estimate_mixed_precision(
        make_sim(), None, CANDIDATES, metric, metric, None, tmp_path, True, None,
        max_evaluations=4, progress=False,
    )  # fmt: skip
    assert estimate.phases["front"].most == 4
    text = str(estimate)
    assert "1, sensitivity" in text and "2, curve" in text and "minutes" in text


def test_table_of_an_estimate() -> None:
    estimate = SearchEstimate(
        {
            "sensitivity": PhaseEstimate(7, 7, 3, 12.0, 2, 2_000_000),
            "front": PhaseEstimate(2, 5, 2, 60.0, 1, 3_000_000),
        },
        {"sensitivity": 12, "front": 15},
        90.0,
    )
    assert estimate.seconds == (4 * 12 + 2 * 60, 4 * 12 + 5 * 60)
    lines = str(estimate).splitlines()
    assert lines[1].split() == ["1,", "sensitivity", "7", "3", "12", "12", "0.8", "2"]
    assert " ".join(lines[2].split()) == "2, curve 2 to 5 2 15 60 2 to 5 3"
    assert lines[3].startswith("in all 2.8 to 5.8 minutes")


def test_bars_are_nested_and_show_the_estimate(capsys: Any) -> None:
    seconds = {"sensitivity": 60.0, "front": 30.0}
    with progress_reporter(True, seconds) as report:
        assert report is not None
        report("front", 0, 2)
        report("front", 1, 2)
        report("sensitivity", 0, 1)
        report("front", 2, 3)
    shown = capsys.readouterr().err
    last = {
        title: re.findall(rf"{title} *: .*?(\d+)/(\d+) \[[^\]]*\]", shown)[-1]
        for title in ("AMP search", "phase 1, sensitivity", "phase 2, curve")
    }
    assert last == {
        "AMP search": ("4", "4"),
        "phase 1, sensitivity": ("1", "1"),
        "phase 2, curve": ("3", "3"),
    }
    assert "estimated 01:30" in shown and "estimated 00:30" in shown


@pytest.mark.parametrize("progress", [None, False])
def test_silent_where_stderr_is_no_terminal(progress: Any, capsys: Any) -> None:
    with progress_reporter(progress) as report:
        assert report is None
    with progress_reporter(True, bars=False) as report:
        assert report is None  # another rank shows them
    assert capsys.readouterr().err == ""


def test_peak_memory_counts_what_was_held() -> None:
    import torch

    with PeakMemory(torch.device("cpu")) as empty:
        pass
    with PeakMemory(torch.device("cpu")) as full:
        torch.ones(50_000_000)  # given back at once
    assert full.peak_bytes - empty.peak_bytes > 150_000_000
