# SPDX-License-Identifier: BSD-3-Clause
"""choose_mixed_precision on a small model: result, simulation, files."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from amp_models import (
    A8W8,
    A8W16,
    A16W8,
    A16W16,
    CANDIDATES,
    FLOAT,
    Closeness,
    choose,
    forward_pass,
    images,
    make_sim,
)

from aimetpp.amp.mixed_precision_algo import (
    EvalCallbackFactory,
    GreedyMixedPrecisionAlgo,
)
from aimetpp.amp.quantizer_groups import find_quantizer_group
from aimetpp.amp.results import (
    ParetoList,
    format_pareto_table,
    format_sensitivity_table,
)
from aimetpp.common.amp.utils import AMPSearchAlgo
from aimetpp.common.defs import CallbackFunc
from aimetpp.mixed_precision import (
    choose_fast_mixed_precision,
)

ALGOS = list(AMPSearchAlgo)


@pytest.mark.parametrize("algo", ALGOS)
def test_defect_01_profile_without_a_drop_is_whole(
    algo: AMPSearchAlgo, tmp_path: Path
) -> None:
    """AIMET gives one point with Binary and Interpolation."""
    sim = make_sim()
    result = choose(sim, tmp_path, amp_search_algo=algo)
    assert isinstance(result, list) and isinstance(result, ParetoList)
    # Every group makes two steps, to 8 and to 4 bits.
    assert len(result) == 2 * result.summary.num_groups
    costs = [row[0] for row in result]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == pytest.approx(1 / 16)
    assert result.stop_reason == "complete"
    assert result.chosen.cost == costs[-1]
    assert len(result.points) == len(result) + 1


def test_scores_belong_to_their_assignments(tmp_path: Path) -> None:
    sim = make_sim()
    result = choose(sim, tmp_path)
    dictionary, _ = find_quantizer_group(sim)
    metric = Closeness()
    for point in result.points:
        for group, candidate in point.assignment.items():
            group.set_quantizers_to_candidate(dictionary, candidate)
        assert metric(sim.model) == pytest.approx(point.score, abs=1e-7)
        assert sim.bit_ops() / result.summary.baseline_bit_ops == pytest.approx(
            point.cost
        )


@pytest.mark.parametrize("algo", ALGOS)
def test_chosen_point_is_the_cheapest_within_the_drop(
    algo: AMPSearchAlgo, tmp_path: Path
) -> None:
    sim = make_sim()
    profile = choose(sim, tmp_path / "profile")
    drop = 0.5 * abs(profile.points[-1].score)
    sim = make_sim()
    result = choose(sim, tmp_path / "drop", drop, amp_search_algo=algo)
    assert result.stop_reason == "complete"
    within = [p for p in result.points if p.score >= result.fp32_score - drop]
    assert result.chosen.cost == min(p.cost for p in within) < 1
    assert result.final_score == result.chosen.score
    metric = Closeness()
    assert metric(sim.model) == pytest.approx(result.final_score, abs=1e-7)
    assert sim.bit_ops() == pytest.approx(
        result.chosen.cost * result.summary.baseline_bit_ops
    )


def test_fp32_score_is_that_of_the_float_model(tmp_path: Path) -> None:
    """Excluded groups are off there too; AIMET leaves what is in no group on."""
    result = choose(make_sim(), tmp_path, exclude="conv2")
    assert result.fp32_score == 0
    assert result.baseline_score < 0


def test_defect_03_tied_quantizers_are_measured_together(tmp_path: Path) -> None:
    """AIMET measures a group without its activation where another group holds it."""
    sim = make_sim()
    result = choose(sim, tmp_path)
    assert all(item.score < 0 for item in result.sensitivities)
    names = [name for group in sim.quantizer_groups() for _, name in group.to_list()]
    assert len(names) == len(set(names))


def test_defect_10_no_redundant_evaluation(tmp_path: Path) -> None:
    """AIMET evaluates activation-only groups at every (activation, param) pair."""
    metric = Closeness()
    four = [A16W16, A16W8, A8W16, A8W8]
    result = choose(make_sim(), tmp_path, candidates=four, metric=metric)
    counts = Counter(item.group for item in result.sensitivities)
    for group, count in counts.items():
        both = group.parameter_quantizers and group.name not in (
            group.parameter_quantizers
        )
        assert count == (3 if both else 1), group
    assert set(counts.values()) == {1, 3}
    assert metric.calls == result.evaluations


def test_defect_06_baseline_is_the_widest_whatever_scores_best(tmp_path: Path) -> None:
    """AIMET starts at the best scoring candidate."""

    def likes_narrow(model: torch.nn.Module) -> float:
        widths = [m.bitwidth for m in model.modules() if hasattr(m, "bitwidth")]
        return -float(sum(widths))

    result = choose(
        make_sim(), tmp_path, candidates=[A8W8, A16W16], metric=likes_narrow
    )
    assert result.summary.baseline_candidate == A16W16
    assert all(point.cost <= 1 for point in result.points)


def test_defect_07_groups_only_narrow(tmp_path: Path) -> None:
    """AIMET raises a group again where a later entry says so."""
    result = choose(make_sim(), tmp_path, candidates=[A16W16, A16W8, A8W16, A8W8])
    now: dict[Any, Any] = {}
    for _, _, group, candidate in result:
        before = now.get(group, A16W16)
        assert candidate[0][0] <= before[0][0] and candidate[1][0] <= before[1][0]
        now[group] = candidate


def test_dominated_points_are_marked(tmp_path: Path) -> None:
    points = choose(make_sim(), tmp_path).points
    for point in points:
        better = [
            q
            for q in points
            if q.cost <= point.cost
            and q.score >= point.score
            and (q.cost, q.score) != (point.cost, point.score)
        ]
        assert point.dominated == bool(better)


def test_defect_14_early_ends_return_results_and_write_files(tmp_path: Path) -> None:
    """AIMET returns None from both and writes nothing."""
    sim = make_sim()
    met = choose(sim, tmp_path / "met", 1e6, pages=True)
    assert met.stop_reason == "target_met_by_all_narrow"
    assert list(met) == [] and met.sensitivities == []
    assert met.chosen is met.points[1] and met.evaluations == 3
    assert set(sim.precisions()) == {"int4"}

    sim = make_sim()
    missed = choose(sim, tmp_path / "missed", 0.0, pages=True)
    assert missed.stop_reason == "target_unreachable"
    assert missed.chosen is None and missed.evaluations == 2
    assert missed.final_score == missed.baseline_score
    assert set(sim.precisions()) == {"int16"}

    sim = make_sim()
    single = choose(
        sim, tmp_path / "single", pages=True, candidates=[A8W8]
    )  # AIMET: IndexError
    assert single.stop_reason == "nothing_to_narrow"
    assert set(sim.precisions()) == {"int8"}
    for name in ("met", "missed", "single"):
        assert {path.name for path in (tmp_path / name).iterdir()} == {
            "pareto_list.json",
            "pareto_curve.html",
            "quantizer_group_sensitivity.html",
            "report.html",
            "report.json",
            "amp_info_list.json",
            ".cache",
        }


def test_files_hold_the_result(tmp_path: Path) -> None:
    result = choose(make_sim(), tmp_path, pages=True)
    rows = json.loads((tmp_path / "pareto_list.json").read_text())
    assert [(row[0], row[1]) for row in rows] == [(c, s) for c, s, _, _ in result]
    assert rows[0][2] == [list(pair) for pair in result[0][2].to_list()]
    assert {row[3] for row in rows} == {"A8 W8", "A4 W4"}
    info = dict(json.loads((tmp_path / "amp_info_list.json").read_text()))
    assert info["fp32 accuracy"] == 0
    assert info["stop reason"] == "complete"
    assert info["count_quantizers_flipped"] == info["total_quantizers"] > 0
    total = info["total_act_quantizers"] + info["total_param_quantizers"]
    assert total == info["total_quantizers"]
    for name in ("pareto_curve", "quantizer_group_sensitivity", "report"):
        page = (tmp_path / f"{name}.html").read_text()
        assert "Bokeh" in page and "conv2.weight" in page
        assert re.search(r'<(script|link)[^>]+(src|href)="http', page) is None


def test_infinite_scores_reach_every_file(tmp_path: Path) -> None:
    sim = make_sim()
    sqnr = EvalCallbackFactory([images()]).sqnr(sim)
    result = choose(sim, tmp_path, pages=True, metric=sqnr)
    assert result.fp32_score == math.inf
    assert "inf" in format_pareto_table(result)
    info = json.loads(
        (tmp_path / "amp_info_list.json").read_text(), parse_constant=pytest.fail
    )
    assert dict(info)["fp32 accuracy"] == "inf"
    with pytest.warns(RuntimeWarning, match="scores full precision as inf"):
        lossless = choose(sim, tmp_path, 3.0, metric=sqnr)
    assert lossless.stop_reason == "target_unreachable"


def test_tables_show_every_point(tmp_path: Path) -> None:
    result = choose(make_sim(), tmp_path)
    table = format_pareto_table(result).splitlines()
    assert len(table) == len(result.points) + 2
    assert sum(line.startswith("*") for line in table[1:-1]) == 1
    assert "baseline" in table[1] and "A16 W16" in table[1]
    sensitivities = format_sensitivity_table(result).splitlines()
    assert len(sensitivities) == len(result.sensitivities) + 1
    missed = choose(make_sim(), tmp_path, 0.0)
    assert "target_unreachable" in format_sensitivity_table(missed)


def test_defect_13_callbacks_of_every_kind(tmp_path: Path) -> None:
    """AIMET needs a CallbackFunc for the forward pass."""

    def evaluate(model: torch.nn.Module, data: Any) -> torch.Tensor:
        assert data is loader and not model.training and not torch.is_grad_enabled()
        return -(model(data) - target).square().sum()

    loader, target = images(), Closeness().target
    sim = make_sim(calibrate=False)
    sim.model.train()
    wrapped = CallbackFunc(evaluate, loader)
    result = choose(
        sim, tmp_path, metric=wrapped, forward_pass_callback=CallbackFunc(forward_pass)
    )
    assert sim.model.training and sim.is_calibrated()
    plain = choose(
        make_sim(calibrate=False),
        tmp_path,
        metric=lambda model: evaluate(model, loader),
        forward_pass_callback=forward_pass,
    )
    assert list(plain) == list(result)


def test_callback_sees_the_current_bit_widths(tmp_path: Path) -> None:
    seen = set()

    def spy(model: torch.nn.Module) -> float:
        quantizer = model.conv2.param_quantizers["weight"]
        seen.add(None if quantizer is None else quantizer.bitwidth)
        return 0.0

    choose(make_sim(), tmp_path, metric=spy)
    assert seen == {None, 16, 8, 4}


def test_defect_11_float_candidates_and_a_sim_that_is_float_already(
    tmp_path: Path,
) -> None:
    """AIMET: RuntimeError without a message on the second run."""
    fp16 = ((16, FLOAT), (16, FLOAT))
    sim = make_sim()
    first = choose(sim, tmp_path, 0.0, candidates=[fp16, A8W8])
    assert first.stop_reason == "target_unreachable"
    assert set(sim.precisions()) == {"fp16"}
    second = choose(sim, tmp_path, candidates=[fp16, A8W8])
    assert second.stop_reason == "complete"
    assert second.summary.baseline_candidate == fp16
    assert set(sim.precisions()) == {"int8"}


def test_fast_mixed_precision_measures_sqnr_first(tmp_path: Path) -> None:
    labelled = [(batch, torch.zeros(4)) for batch in images().split(4)]
    metric = Closeness()
    result = choose_fast_mixed_precision(
        make_sim(),
        images()[:1],
        CANDIDATES,
        lambda: labelled,
        metric,
        None,
        tmp_path,
        True,
        None,
        progress=False,
    )
    assert len(result) == 2 * result.summary.num_groups
    assert all(item.score > 0 for item in result.sensitivities)  # dB
    assert metric.calls == result.summary.evaluations["front"]


def test_progress_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    calls: list[tuple[str, int, int]] = []
    result = choose(make_sim(), tmp_path, progress=lambda *args: calls.append(args))
    assert len(calls) == result.evaluations
    assert all(done < total for _, done, total in calls)
    assert capsys.readouterr().err == ""
    choose(make_sim(), tmp_path, progress=True)
    assert "phase 1, sensitivity" in capsys.readouterr().err


def test_algo_runs_again_without_evaluating_again(tmp_path: Path) -> None:
    metric = Closeness()
    sim = make_sim()
    algo = GreedyMixedPrecisionAlgo(
        sim, None, CANDIDATES, metric, metric, tmp_path, True, None, progress=False
    )
    profile = algo.run(None)
    again = algo.run(0.5 * abs(profile.points[-1].score), AMPSearchAlgo.BruteForce)
    assert again.evaluations <= 1  # the point with all groups narrow is a step
    assert list(again) == list(profile)
    assert algo.result is again
