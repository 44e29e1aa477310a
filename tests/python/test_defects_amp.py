# SPDX-License-Identifier: BSD-3-Clause
"""Defects of AIMET 2.42's automatic mixed precision that must not be here.

The number in a name is that of the defect. Those with a test beside the feature's
other tests are in test_amp.py (1, 3, 6, 7, 10, 11, 13, 14), test_amp_input.py (4, 8,
12, 20), test_amp_cache.py (5) and test_evaluation.py (9, 12, 48).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from amp_models import (
    A4W4,
    A8W8,
    A16W16,
    CANDIDATES,
    Closeness,
    choose,
    forward_pass,
    images,
    make_net,
    make_sim,
)
from image_networks import ResNet18
from torch import nn

from aimetpp.common.amp.utils import AMPSearchAlgo
from aimetpp.common.defs import CallbackFunc
from aimetpp.mixed_precision import choose_mixed_precision
from aimetpp.quantsim import QuantizationSimModel


def test_defect_03_a_group_is_measured_with_its_tied_activation(tmp_path: Path) -> None:
    """AIMET scores the group of a concatenation as the float model."""
    sim = make_sim()
    result = choose(sim, tmp_path)
    for item in result.sensitivities:
        assert item.score < 0, item  # 0: as the float model
    cat = [g for g in sim.quantizer_groups() if "/cat_0" in g.output_quantizers]
    assert len(cat) == 1
    assert {"relu", "/add_0", "/cat_0"} <= set(cat[0].output_quantizers)


def test_defect_05_candidates_that_are_gone_are_not_applied(tmp_path: Path) -> None:
    """AIMET leaves the model at the 4 bits of an earlier run's candidates."""
    choose(make_sim(), tmp_path, candidates=[A16W16, A8W8, A4W4])
    sim = make_sim()
    with pytest.warns(RuntimeWarning, match="other candidates"):
        choose(sim, tmp_path, candidates=[A16W16, A8W8], clean_start=False)
    assert set(sim.precisions()) == {"int8"}


def test_defect_06_a_tie_of_scores_does_not_move_the_baseline(tmp_path: Path) -> None:
    result = choose(
        make_sim(), tmp_path, candidates=[A8W8, A16W16], metric=lambda model: 1.0
    )
    assert result.summary.baseline_candidate == A16W16
    assert max(row[0] for row in result) <= 1


@pytest.mark.parametrize("algo", list(AMPSearchAlgo))
def test_defect_07_the_choice_is_the_cheapest_evaluated_point_on_bumpy_scores(
    algo: AMPSearchAlgo, tmp_path: Path
) -> None:
    """AIMET's binary search takes scores to be monotone."""

    def bumpy(model: nn.Module) -> float:
        widths = [m.bitwidth for m in model.modules() if hasattr(m, "bitwidth")]
        return float(hash((sum(widths), len(widths))) % 97)

    result = choose(make_sim(), tmp_path, 20.0, metric=bumpy, amp_search_algo=algo)
    target = result.fp32_score - 20.0
    met = [point.cost for point in result.points if point.score >= target]
    if result.stop_reason == "target_unreachable":
        assert result.baseline_score < target and result.chosen is None
    else:
        assert (result.chosen or result.points[0]).cost == min(met)


def test_defect_12_one_candidate_is_no_error(tmp_path: Path) -> None:
    """AIMET: IndexError."""
    sim = make_sim(default_output_bw=8, default_param_bw=8)
    result = choose(sim, tmp_path, 0.1, candidates=[A16W16])
    assert result.stop_reason in ("nothing_to_narrow", "target_unreachable")
    assert set(sim.precisions()) == {"int16"}


class Products(nn.Module):
    """One op of each kind that multiplies; batch first, then 5 steps of 4 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.conv1d = nn.Conv1d(5, 8, 3, padding=1)
        self.conv2d = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(4, 8, 3, padding=1, groups=2)
        self.conv3d = nn.Conv3d(1, 2, 2)
        self.transposed = nn.ConvTranspose2d(8, 3, 2, stride=2)
        self.lstm = nn.LSTM(6, 7, batch_first=True)
        self.gru = nn.GRU(6, 3, batch_first=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.linear(x)  # [n, 5, 6]
        a = self.conv1d(y)  # [n, 8, 6]
        b = self.grouped(self.conv2d(y.unsqueeze(1)))  # [n, 8, 5, 6]
        c = self.transposed(b)  # [n, 3, 10, 12]
        d = self.conv3d(c.unsqueeze(1))  # [n, 2, 2, 9, 11]
        e = a @ y.transpose(1, 2)  # [n, 8, 5]
        f = torch.einsum("nij,nkj->nik", y, y)  # [n, 5, 5]
        g = nn.functional.scaled_dot_product_attention(y, y, y)
        return a, d, e, f, g, self.lstm(y)[0], self.gru(y)[0]


@pytest.mark.parametrize("batch", [1, 3])
def test_defect_15_macs_of_every_op_that_multiplies(batch: int) -> None:
    """AIMET leaves out the sequence, and most ops; the batch changes others."""
    sim = QuantizationSimModel(Products().eval(), torch.randn(batch, 5, 4))
    macs = {op.name: op.macs for op in sim.graph.ops if op.macs}
    assert macs == {
        "linear": 5 * 4 * 6,
        "conv1d": 6 * 8 * 5 * 3,
        "conv2d": 5 * 6 * 4 * 1 * 9,
        "grouped": 5 * 6 * 8 * 2 * 9,
        "transposed": 8 * 5 * 6 * 3 * 4,
        "conv3d": 2 * 2 * 9 * 11 * 8,
        "/matmul_0": 8 * 5 * 6,
        "/einsum_0": 5 * 5 * 6,
        "/matmul_1": 5 * 5 * 6,  # attention: queries and keys
        "/matmul_2": 5 * 5 * 6,  # probabilities and values
        "lstm": 5 * 4 * 7 * (6 + 7),
        "gru": 5 * 3 * 3 * (6 + 3),
    }


def test_defect_15_flatten_does_not_part_a_weight_from_its_activation() -> None:
    """AIMET puts the weights behind nn.Flatten into a group of their own."""
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.MaxPool2d(2),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(12, 2),
    )
    sim = QuantizationSimModel(model.eval(), images()[:1])
    group = next(g for g in sim.quantizer_groups() if "4.weight" in str(g))
    assert group.output_quantizers == ("0",)


def test_defect_16_the_kernels_of_a_producer_restrict_its_output(
    tmp_path: Path,
) -> None:
    """AIMET narrows a ReLU that has 16-bit kernels only."""
    document = json.loads(
        (Path(__file__).parents[2] / "aimetpp/configs/default.json").read_text()
    )
    sixteen = {"activation": {"bitwidth": 16, "dtype": "int"}}
    document["supergroups"] = []
    document["op_type"]["Relu"] = {
        "is_output_quantized": "True",
        "supported_kernels": [sixteen],
    }
    config = tmp_path / "config.json"
    config.write_text(json.dumps(document))
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3)).eval()
    sim = QuantizationSimModel(model, images()[:1], None, 16, 16, config_file=config)
    sim.compute_encodings(forward_pass)
    seen = set()

    def metric(current: nn.Module) -> float:
        quantizer = current[1].output_quantizers[0]
        seen.add(None if quantizer is None else quantizer.bitwidth)
        return 0.0

    choose(sim, tmp_path / "r", candidates=[A16W16, A8W8], metric=metric)
    assert seen == {None, 16}
    assert "int8" in sim.precisions()


@pytest.mark.parametrize("algo", list(AMPSearchAlgo))
def test_defect_17_reverse_is_the_profile_from_the_other_end(
    algo: AMPSearchAlgo, tmp_path: Path
) -> None:
    """AIMET ends at the first step, and its bit-ops are relative to the lowest."""
    forward = choose(make_sim(), tmp_path / "forward")
    options = {"phase2_reverse": True, "amp_search_algo": algo}
    sim = make_sim()
    reverse = choose(sim, tmp_path / "reverse", **options)
    assert [row[:2] for row in reverse] == [row[:2] for row in forward][::-1]
    costs = [row[0] for row in reverse]
    assert costs == sorted(costs) and costs[-1] <= 1
    for point in reverse.points[1:]:
        assert point.assignment[point.group] == point.candidate
    drop = 0.5 * abs(forward.points[-1].score)
    raised = choose(sim, tmp_path / "reverse", drop, clean_start=False, **options)
    lowered = choose(make_sim(), tmp_path / "forward", drop, clean_start=False)
    assert raised.evaluations == lowered.evaluations == 0
    assert raised.chosen.cost == lowered.chosen.cost < 1


def test_defect_18_nothing_is_calibrated_again(tmp_path: Path) -> None:
    """AIMET calibrates before every phase-2 evaluation."""
    calls = []
    metric = Closeness()
    sim = make_sim()
    result = choose(
        sim,
        tmp_path,
        metric=metric,
        forward_pass_callback=CallbackFunc(lambda model, _: calls.append(model), None),
    )
    assert calls == []
    assert metric.calls == result.evaluations


def test_defect_19_files_are_json_and_spelled_right(tmp_path: Path) -> None:
    """AIMET pickles, writes "fp32 accuray" and repeats quantizer names."""
    sim = make_sim()
    choose(sim, tmp_path, pages=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".jsonl", ".html", ""}
    for path in files:
        if path.suffix == ".jsonl":
            assert [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".json":
            json.loads(path.read_text())
    info = dict(json.loads((tmp_path / "amp_info_list.json").read_text()))
    assert "fp32 accuracy" in info
    for group in sim.quantizer_groups():
        assert len(set(group.to_list())) == len(group.to_list())


def test_defect_42_weights_on_a_coarse_grid_are_calibrated_as_others() -> None:
    """AIMET looks for a grid that 16-bit weights might lie on."""
    model = make_net()
    with torch.no_grad():
        model.fc.weight.copy_((model.fc.weight * 8).round() / 8)
    sim = QuantizationSimModel(model, images()[:1], None, 16, 16)
    sim.compute_encodings(forward_pass)
    largest = model.fc.weight.abs().amax(1)
    scale = sim.model.fc.param_quantizers["weight"].get_scale()
    assert torch.allclose(scale.flatten(), largest / 32767, rtol=1e-3)


def test_defect_44_every_weight_of_an_unprepared_resnet_is_searched(
    tmp_path: Path,
) -> None:
    """AIMET leaves 8 convolutions in no group, quantized in its float baseline."""
    torch.manual_seed(0)
    model = ResNet18().eval()
    data = torch.randn(2, 3, 32, 32)
    sim = QuantizationSimModel(model, data[:1], None, 16, 16)
    sim.compute_encodings(lambda net: net(data))
    with torch.no_grad():
        expected = model(data)
    weights = {f"{n}.weight" for n, m in model.named_modules() if _multiplies(m)}
    grouped = {w for g in sim.quantizer_groups() for w in g.parameter_quantizers}
    assert weights <= grouped

    def distance(net: nn.Module) -> float:
        return -float((net(data) - expected).square().sum())

    result = choose(sim, tmp_path, 1e9, candidates=[A16W16, A8W8], metric=distance)
    assert result.fp32_score == 0  # nothing stays quantized
    assert set(sim.precisions()) == {"int8"}


def _multiplies(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear)


def test_one_run_at_a_time_in_a_results_folder(tmp_path: Path) -> None:
    metric = Closeness()

    def starts_another(model: nn.Module) -> float:
        arguments: dict[str, Any] = {
            "allowed_accuracy_drop": None,
            "results_dir": tmp_path,
            "clean_start": True,
            "forward_pass_callback": None,
            "progress": False,
        }
        with pytest.raises(RuntimeError, match=r"results_dir .* in use by another run"):
            choose_mixed_precision(
                make_sim(), images()[:1], CANDIDATES, metric, metric, **arguments
            )
        return metric(model)

    result = choose(make_sim(), tmp_path, 1e6, metric=starts_another)
    assert result.evaluations == metric.calls == 3
    assert choose(make_sim(), tmp_path, 1e6, metric=metric).evaluations == 3
