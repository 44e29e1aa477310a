# SPDX-License-Identifier: BSD-3-Clause
"""What a point costs: bit-ops per sample, a table of one's own, bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from amp_models import (
    A8W8,
    A16W8,
    A16W16,
    INT,
    assert_untouched,
    choose,
    make_net,
    make_sim,
)
from torch import nn

from aimetpp.amp.results import format_pareto_table
from aimetpp.quantsim import QuantizationSimModel


def latencies() -> dict[tuple[str, Any, Any], float]:
    """Twice as long at 16 bits; fc costs as much as all the rest."""
    table: dict[tuple[str, Any, Any], float] = {}
    for bits, time in ((16, 2.0), (8, 1.0)):
        table["Conv", f"int{bits}", "int8"] = time
        table["fc", (bits, INT), (8, INT)] = 4 * time
        table["Add", f"int{bits}", None] = time
    return table


def test_a_table_takes_the_place_of_bit_ops(tmp_path: Path) -> None:
    sim = make_sim()
    result = choose(sim, tmp_path, candidates=[A16W8, A8W8], cost_table=latencies())
    assert result.summary.baseline_cost == 2 + 2 + 8 + 2
    assert result[-1][0] == pytest.approx(0.5)
    saved = {
        name: item.bit_ops_reduction
        for item in result.sensitivities
        for _, name in item.group.to_list()
    }
    assert saved["fc.weight"] == 4
    assert saved["conv1.weight"] == 1
    assert result.summary.baseline_bit_ops > 1000
    plain = choose(make_sim(), tmp_path / "plain", candidates=[A16W8, A8W8])
    assert [row[0] for row in plain] != [row[0] for row in result]


def test_phase_3_counts_by_the_table_too(tmp_path: Path) -> None:
    sim = make_sim()
    seen: list[float] = []

    def prefers_conv_narrow(model: nn.Module) -> float:
        wide = ("fc", "conv2")
        now = {
            sim.graph.site_name(spec.sites[0]): precision
            for spec, precision in zip(
                sim.placement.quantizers, sim.precisions(), strict=True
            )
        }
        seen.append(0.0)
        return -float(sum(now[name] == "int8" for name in wide if name in now))

    result = choose(
        sim,
        tmp_path,
        0.0,
        candidates=[A16W8, A8W8],
        metric=prefers_conv_narrow,
        cost_table=latencies(),
        convert_op_reduction=True,
    )
    for point in result.alphas:
        assert 0.5 <= point.cost <= 1
        assert (point.cost * 14) == pytest.approx(round(point.cost * 14))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda t: 3, TypeError, "cost_table must be a dict"),
        (lambda t: {"Conv": 1.0}, TypeError, r"keys must be \(op, activation, param\)"),
        (lambda t: t | {("Conv", "int8", "int8"): "1"}, TypeError, "must be a number"),
        (lambda t: t | {("Conv", "int8", "int8"): -1.0}, ValueError, "not negative"),
        (lambda t: t | {("Conv", "int8", "int3x"): 1.0}, ValueError, "int3x"),
        (lambda t: t | {("LSTM", "int8", "int8"): 1.0}, ValueError, "kind LSTM"),
        (
            lambda t: {key: cost for key, cost in t.items() if key[0] != "Conv"},
            ValueError,
            "rows for conv1, Conv or conv2d are required",
        ),
        (
            lambda t: {key: cost for key, cost in t.items() if key[1] != "int8"},
            ValueError,
            r"has no cost for \(int8, int8\)",
        ),
    ],
)
def test_wrong_tables(change: Any, error: type, match: str, tmp_path: Path) -> None:
    sim = make_sim()
    calls: list[int] = []
    assert_untouched(
        sim,
        lambda: choose(
            sim,
            tmp_path,
            candidates=[A16W8, A8W8],
            metric=lambda model: calls.append(1) or 0.0,
            cost_table=change(latencies()),
        ),
        error,
        match,
    )
    assert calls == []


def test_points_tell_their_memory(tmp_path: Path) -> None:
    sim = make_sim()
    result = choose(sim, tmp_path, candidates=[A16W16, A8W8])
    sizes = {name: p.numel() for name, p in make_net().named_parameters()}
    weights = sum(n for name, n in sizes.items() if name.endswith("weight"))
    biases = sum(n for name, n in sizes.items() if name.endswith("bias"))
    baseline, narrow = result.points[0], result.points[-1]
    assert baseline.weight_bytes == 2 * weights + 4 * biases
    assert narrow.weight_bytes == weights + 4 * biases
    assert baseline.activation_bytes == 2 * narrow.activation_bytes > 0
    for before, after in zip(result.points, result.points[1:], strict=False):
        assert after.weight_bytes <= before.weight_bytes
        assert after.activation_bytes <= before.activation_bytes
    table = format_pareto_table(result).splitlines()
    assert f"{baseline.weight_bytes:,.0f}" in table[1]


class Recurrent(nn.Module):
    """A linear layer and an LSTM."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.lstm = nn.LSTM(6, 7, batch_first=batch_first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(self.linear(x).relu())[0]


@pytest.mark.parametrize("batch", [1, 3])
def test_a_time_major_model_is_counted_per_sample(batch: int) -> None:
    x = torch.randn(batch, 5, 4)
    first = QuantizationSimModel(Recurrent(True), x)
    major = QuantizationSimModel(Recurrent(False), x.transpose(0, 1).contiguous())
    assert {op.name: op.macs for op in major.graph.ops if op.macs} == {
        "linear": 5 * 4 * 6,
        "lstm": 5 * 4 * 7 * (6 + 7),
    }
    assert major.bit_ops() == first.bit_ops()
