# SPDX-License-Identifier: BSD-3-Clause
"""Phase 3 of AMP: alphas, choice, files, costs, ends on real networks."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from amp_models import (
    A8W8,
    A16W8,
    A16W16,
    CANDIDATES,
    FLOAT,
    INT,
    Closeness,
    assert_untouched,
    bits,
    choose,
    make_sim,
)
from image_networks import MobileNetV2, ResNet18
from torch import nn

from aimetpp import _C
from aimetpp.amp.convert_ops import best_alpha
from aimetpp.amp.mixed_precision_algo import GreedyMixedPrecisionAlgo
from aimetpp.amp.results import format_alpha_table
from aimetpp.quantsim import QuantizationSimModel

ALPHAS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def allowed_drop(folder: Path, candidates: Any) -> float:
    """Between the drop of the baseline and that of the narrowest setting."""
    profile = choose(make_sim(), folder / "profile", candidates=candidates)
    worst = min(point.score for point in profile.points)
    return abs(0.6 * profile.baseline_score + 0.4 * worst)


def reduce(sim: Any, folder: Path, **options: Any) -> Any:
    """Phases 1 to 3 without the exports."""
    drop = allowed_drop(folder, options.get("candidates", CANDIDATES))
    with mock.patch("aimetpp.amp.mixed_precision_algo.export_alphas"):
        return choose(
            sim, folder / "reduced", drop, convert_op_reduction=True, **options
        )


@pytest.mark.parametrize(
    ("costs", "scores", "taken"),
    [
        # No convert op is worth going back to the baseline: 1 > 0.56 + 0.11.
        ([(1.0, 0), (0.56, 11), (0.56, 100)], [9, 9, 9], 0.2),
        # Two hundredths of bit-ops are worth all convert ops: 0.25 < 0.24 + 0.2.
        ([(0.25, 0), (0.24, 20), (0.23, 100)], [9, 9, 9], 0.0),
        ([(0.25, 0), (0.24, 20), (0.23, 100)], [7, 9, 9], 0.2),  # out of the drop
        ([(0.25, 0), (0.24, 20), (0.23, 100)], [7, 7, 7], 1.0),
        ([(0.25, 0), (0.24, 0), (0.23, 0)], [9, 9, 9], 1.0),  # nothing to convert
    ],
)
def test_convert_ops_and_bit_ops_are_weighed(
    costs: list[tuple[float, float]], scores: list[float], taken: float
) -> None:
    measured: Any = [
        SimpleNamespace(
            score=score,
            solution=SimpleNamespace(
                alpha=alpha, relative_cost=cost, convert_cost=convert
            ),
        )
        for alpha, (cost, convert), score in zip(
            (0.0, 0.2, 1.0), costs, scores, strict=True
        )
    ]
    assert best_alpha(measured, target=8).solution.alpha == taken


FP16 = ((16, FLOAT), (16, FLOAT))


@pytest.mark.parametrize(
    "candidates",
    [
        [A16W8, A8W8],
        [A16W16, A8W8, ((4, INT), (4, INT))],
        [FP16, A16W8, A8W8],
        [((32, FLOAT), (32, FLOAT)), A8W8],
    ],
)
def test_defect_02_any_candidates_are_reduced_and_measured(
    candidates: Any, tmp_path: Path
) -> None:
    """AIMET: two candidates only, no accuracy, and it fails with an AttributeError."""
    sim = make_sim()
    result = reduce(sim, tmp_path, candidates=candidates)
    assert [point.alpha for point in result.alphas] == ALPHAS
    last = result.alphas[-1]
    assert last.convert_cost > 0
    for point in result.alphas:
        assert point.within_budget and point.gap == 0
        assert point.convert_cost <= point.alpha * last.convert_cost + 1e-6
        assert last.cost <= point.cost <= 1 + 1e-12
        for group, candidate in point.assignment.items():
            assert candidate[0][0] >= last.assignment[group][0][0]
    drop = allowed_drop(tmp_path, candidates)
    within = [p for p in result.alphas if p.score >= result.fp32_score - drop]
    best = min(within, key=lambda p: p.cost + p.convert_cost / last.convert_cost)
    assert (result.chosen or result.points[0]).assignment == best.assignment
    assert Closeness()(sim.model) == pytest.approx(result.final_score, abs=1e-6)
    points = _C.find_convert_points(sim.graph, sim.placement)
    left = _C.convert_cost(points, sim.precisions(), {})
    assert left == pytest.approx(best.convert_cost)
    assert result.alphas[0].convert_cost == 0


def test_alpha_one_is_what_phase_2_chose(tmp_path: Path) -> None:
    options: dict[str, Any] = {"candidates": [A16W8, A8W8]}
    reduced = reduce(make_sim(), tmp_path, **options)
    drop = allowed_drop(tmp_path, options["candidates"])
    plain = choose(make_sim(), tmp_path / "plain", drop, **options)
    assert plain.alphas == []
    assert reduced.alphas[-1].assignment == plain.chosen.assignment
    assert reduced.alphas[-1].score == plain.final_score
    assert reduced.alphas[-1].cost == plain.chosen.cost
    assert list(reduced) == list(plain)
    measured = [p.assignment for p in reduced.points]
    assert all(alpha.assignment in measured for alpha in reduced.alphas)


def test_progress_counts_what_is_evaluated(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    drop = allowed_drop(tmp_path, [A16W8, A8W8])
    with mock.patch("aimetpp.amp.mixed_precision_algo.export_alphas"):
        result = choose(
            make_sim(),
            tmp_path / "r",
            drop,
            candidates=[A16W8, A8W8],
            convert_op_reduction=True,
            progress=lambda *args: calls.append(args),
        )
    count = result.summary.evaluations["convert"]
    expected = [("convert", done, count) for done in range(count)]
    assert [call for call in calls if call[0] == "convert"] == expected
    assert 0 < count < len(result.alphas)


def test_files_and_exports_of_every_alpha(tmp_path: Path) -> None:
    drop = allowed_drop(tmp_path, [A16W8, A8W8])
    sim = make_sim()
    result = choose(
        sim,
        tmp_path / "r",
        drop,
        pages=True,
        candidates=[A16W8, A8W8],
        convert_op_reduction=True,
    )
    chosen = []
    for point in result.alphas:
        stem = f"AMP_phase_3_data_alpha_{point.alpha}.json"
        document = json.loads((tmp_path / "r" / stem).read_text())
        assert document["score"] == point.score
        assert document["alpha"] == point.alpha
        assert document["convert_cost"] == point.convert_cost
        assert document["status"] == "optimal"
        chosen += [point.alpha] if document["chosen"] else []
        for suffix in (".onnx", ".encodings", "_torch.encodings"):
            name = f"AMP_ph3_export_alpha_{point.alpha}{suffix}"
            assert (tmp_path / "r" / name).stat().st_size > 0
    assert chosen == [result.summary.chosen_alpha]
    assert "alpha" in (tmp_path / "r" / "report.html").read_text()
    table = format_alpha_table(result).splitlines()
    assert len(table) == 7 and sum(line.startswith("*") for line in table) == 1
    info = dict(json.loads((tmp_path / "r" / "amp_info_list.json").read_text()))
    assert info["phase3 alpha"] == result.summary.chosen_alpha
    assert info["final score"] == result.final_score
    assert Closeness()(sim.model) == pytest.approx(result.final_score, abs=1e-6)


def test_the_attribute_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GreedyMixedPrecisionAlgo, "ENABLE_CONVERT_OP_REDUCTION", True)
    with mock.patch("aimetpp.amp.mixed_precision_algo.export_alphas"):
        assert len(choose(make_sim(), tmp_path).alphas) == 6
        assert choose(make_sim(), tmp_path, convert_op_reduction=False).alphas == []
        missed = choose(make_sim(), tmp_path, 0.0)
    assert missed.stop_reason == "target_unreachable" and missed.alphas == []


def test_a_second_run_evaluates_nothing(tmp_path: Path) -> None:
    sim = make_sim()
    first = reduce(sim, tmp_path, candidates=[A16W8, A8W8])
    second = reduce(make_sim(), tmp_path, candidates=[A16W8, A8W8], clean_start=False)
    assert second.evaluations == 0
    assert [(p.alpha, p.score, p.cost) for p in second.alphas] == [
        (p.alpha, p.score, p.cost) for p in first.alphas
    ]
    assert second.chosen == first.chosen


def test_a_users_costs_count(tmp_path: Path) -> None:
    sim = make_sim()
    up, down = ("int8", "int16"), ("int16", "int8")
    result = reduce(
        sim, tmp_path, candidates=[A16W8, A8W8], convert_costs={up: 1.0, down: 2.5}
    )
    dear = reduce(
        make_sim(),
        tmp_path,
        candidates=[A16W8, A8W8],
        convert_costs={((8, INT), (16, INT)): 10.0, down: 25.0},
    )
    assert result.alphas[-1].convert_cost > 0
    for cheap, costly in zip(result.alphas, dear.alphas, strict=True):
        assert costly.convert_cost == pytest.approx(10 * cheap.convert_cost)
    by_name = bits(sim)
    table = {up: 1.0, down: 2.5}
    points = _C.find_convert_points(sim.graph, sim.placement)
    expected = sum(
        point.elements * table[pair]
        for point in points
        for pair in {
            (sim.precisions()[point.from_quantizer], sim.precisions()[to])
            for to in point.to_quantizers
        }
        if pair[0] != pair[1]
    )
    chosen = min(result.alphas, key=lambda p: (p.convert_cost, p.cost))
    assert expected == pytest.approx(chosen.convert_cost), by_name


@pytest.mark.parametrize(
    ("costs", "error", "match"),
    [
        (3, TypeError, "convert_costs must be a dict"),
        ({"int8": 1.0}, TypeError, r"keys must be \(precision, precision\)"),
        ({("int8", "int16"): "1"}, TypeError, "must be a number, got str"),
        ({("int8", "int16"): -1.0}, ValueError, "finite and not negative"),
        ({("int8", "int16"): 1.0}, ValueError, "every pair; missing.*int16.*int8"),
        ({("int8", "int99"): 1.0}, ValueError, "int99"),
    ],
)
def test_wrong_costs(costs: Any, error: type, match: str, tmp_path: Path) -> None:
    sim = make_sim()
    assert_untouched(
        sim,
        lambda: choose(
            sim,
            tmp_path,
            candidates=[A16W8, A8W8],
            convert_op_reduction=True,
            convert_costs=costs,
        ),
        error,
        match,
    )


def test_a_model_that_cannot_be_exported_keeps_its_results(tmp_path: Path) -> None:
    sim = make_sim()
    with (
        mock.patch.object(type(sim), "export", side_effect=RuntimeError("no ONNX")),
        pytest.warns(RuntimeWarning, match=r"alpha_0\.0 could not be exported: no"),
    ):
        result = choose(sim, tmp_path, convert_op_reduction=True)
    assert len(result.alphas) == 6
    assert (tmp_path / "AMP_phase_3_data_alpha_1.0.json").exists()


@pytest.mark.parametrize("make", [MobileNetV2, ResNet18])
def test_defect_43_an_unprepared_network_ends(make: Any, tmp_path: Path) -> None:
    """AIMET never ends on a mobilenet_v2 as it is."""
    torch.manual_seed(0)
    model = make().eval()
    data = torch.randn(2, 3, 64, 64)
    sim = QuantizationSimModel(model, data[:1], None, 16, 8)
    sim.compute_encodings(lambda net: net(data))
    assert len(sim.quantizer_groups()) > 20
    every_third = [
        index
        for index, spec in enumerate(sim.placement.quantizers)
        if spec.kind != "param"
    ][::3]

    def alternating(net: nn.Module) -> float:
        """Wants every third activation wide."""
        now = sim.precisions()
        return -float(sum(now[index] == "int8" for index in every_third))

    with mock.patch("aimetpp.amp.mixed_precision_algo.export_alphas"):
        result = choose(
            sim,
            tmp_path,
            3.0,
            candidates=[A16W8, A8W8],
            metric=alternating,
            convert_op_reduction=True,
        )
    assert [point.alpha for point in result.alphas] == ALPHAS
    assert all(point.gap == 0 for point in result.alphas)
    costs = [point.convert_cost for point in result.alphas]
    assert costs == sorted(costs) and costs[0] == 0 < costs[-1]


def test_files_of_an_earlier_phase_3_go(tmp_path: Path) -> None:
    assert reduce(make_sim(), tmp_path).alphas
    folder = tmp_path / "reduced"
    export = folder / "AMP_ph3_export_alpha_0.2.onnx"
    export.write_text("of the earlier run")
    assert len(list(folder.glob("AMP_ph*"))) == len(ALPHAS) + 1
    choose(make_sim(), folder, clean_start=False)
    assert not list(folder.glob("AMP_ph*"))
    assert (folder / "pareto_list.json").exists()
