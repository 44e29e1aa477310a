# SPDX-License-Identifier: BSD-3-Clause
"""auto_mixed_precision: a target, one metric, group after group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from amp_models import (
    A8W8,
    A16W16,
    FLOAT,
    INT,
    Closeness,
    bits,
    forward_pass,
    images,
    make_net,
    make_sim,
)
from torch import nn

from aimetpp.amp.evaluation import EvalCallbackFactory
from aimetpp.amp.quantizer_groups import find_quantizer_group
from aimetpp.mixed_precision import L2Target, Top1Target, auto_mixed_precision
from aimetpp.quantsim import QuantizationSimModel

NARROW = ((4, INT), (4, INT))


class Clash(Closeness):
    """The two least sensitive groups do not go well together."""

    def __call__(self, model: nn.Module) -> float:
        quantizers = model.conv2.output_quantizers[0], model.conv1.param_quantizers
        narrow = [quantizers[0], quantizers[1]["weight"]]
        clash = all(q is not None and q.bitwidth == 4 for q in narrow)
        return super().__call__(model) - 0.05 * clash


def narrow(sim: Any, target: Any, **options: Any) -> Any:
    settings = {"evaluate": Clash(), "progress": False, **options}
    return auto_mixed_precision(sim, A16W16, NARROW, target=target, **settings)


def plain_loop(target: float, skip: bool) -> list[str]:
    """The tutorial's four steps on a simulation of its own; what ends up narrow."""
    sim, metric = make_sim(), Clash()
    quantizers, groups = find_quantizer_group(sim)

    def loss_with(narrowed: list[Any]) -> float:
        for group in groups:
            candidate = NARROW if group in narrowed else A16W16
            group.set_quantizers_to_candidate(quantizers, candidate)
        return -metric(sim.model)

    if loss_with(groups) <= target:
        return sorted(map(str, groups))
    losses = {group: loss_with([group]) for group in groups}
    kept: list[Any] = []
    for group in sorted(groups, key=lambda group: losses[group]):
        if loss_with([*kept, group]) <= target:
            kept.append(group)
        elif not skip:
            break
    return sorted(map(str, kept))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("target", [0.001, 0.004, 0.012, 1.0])
def test_agrees_with_a_plain_loop(target: float, skip: bool) -> None:
    sim = make_sim()
    found = narrow(sim, target, skip_breaking=skip)
    assert found.fp32_score == 0
    assignment = (found.chosen or found.points[0]).assignment
    narrowed = [str(g) for g, candidate in assignment.items() if candidate == NARROW]
    assert sorted(narrowed) == plain_loop(target, skip)
    assert found.final_score >= -target
    # The simulation is left there.
    assert Clash()(sim.model) == pytest.approx(found.final_score, abs=1e-7)
    assert set(bits(sim).values()) <= {"int16", "int4"}


def test_targets_make_a_difference() -> None:
    """Else the test above would compare like with like."""
    kept = [
        len(plain_loop(target, skip))
        for target, skip in [(0.001, 0), (0.012, 0), (0.012, 1), (1.0, 0)]
    ]
    assert kept == [0, 1, 3, 5]


def test_l2_target_bounds_the_mean_distance() -> None:
    sim = make_sim()
    loader = [images()[:10], images()[10:]]
    found = auto_mixed_precision(
        sim, "int16", "int4", target=L2Target(0.02, loader), progress=False
    )
    assert found.stop_reason == "complete" and 0 < found.chosen.cost < 1
    with torch.no_grad():
        difference = sim.model(images()) - make_net()(images())
    assert -found.final_score == pytest.approx(
        float(difference.double().norm(dim=1).mean()), rel=1e-5
    )
    assert 0 < -found.final_score <= 0.02


class TwoHeads(nn.Module):
    """A shared layer and two heads, of which the first gives the answer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.body = nn.Linear(6, 8)
        self.answer = nn.Linear(8, 3)
        self.extra = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = torch.relu(self.body(x))
        return {"answer": self.answer(x), "extra": 100 * self.extra(x)}


def heads_sim() -> tuple[QuantizationSimModel, torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    x = torch.randn(64, 6)
    model = TwoHeads().eval()
    sim = QuantizationSimModel(model, x[:1], default_output_bw=16, default_param_bw=16)
    sim.compute_encodings(lambda model: model(x))
    return sim, x, model(x)["answer"].argmax(1)


def test_output_index_chooses_the_output_that_counts() -> None:
    sim, x, _ = heads_sim()
    distances = [
        EvalCallbackFactory([x], output_index=index).distance(sim, None)
        for index in (None, 0, 1)
    ]
    sim.apply_precisions(["int6"] * len(sim.precisions()))
    both, first, second = (metric(sim.model) for metric in distances)
    assert both == pytest.approx((first + second) / 2)
    assert second < 20 * first  # negative distances

    # The first head does not notice what happens to the second.
    found = auto_mixed_precision(
        sim, "int16", "int4", target=L2Target(1e-3, [x]), output_index=0, progress=False
    )
    precisions = bits(sim)
    assert precisions["extra"] == "int4"
    assert precisions["answer"] == "int16"
    assert found.stop_reason == "complete"
    with pytest.raises(ValueError, match="output_index must be below 2"):
        auto_mixed_precision(
            sim, "int16", "int8", target=L2Target(1, [x]), output_index=2
        )


def test_top1_target_counts_labels() -> None:
    sim, x, labels = heads_sim()
    batches = [(x[:40], labels[:40]), (x[40:], labels[40:])]
    target = Top1Target(1 / 64, batches)
    with pytest.raises(ValueError, match="top1: one output of shape"):
        auto_mixed_precision(sim, "int16", "int3", target=target, progress=False)
    found = auto_mixed_precision(
        sim, "int16", "int3", target=target, output_index=0, progress=False
    )
    assert found.fp32_score == 1
    hits = (sim.model(x)["answer"].argmax(1) == labels).sum()
    assert found.final_score == pytest.approx(int(hits) / 64)
    assert found.final_score >= 1 - 1 / 64
    assert "int3" in bits(sim).values() and "int16" in bits(sim).values()
    with pytest.raises(TypeError, match="batches must hold labels"):
        auto_mixed_precision(
            sim, "int16", "int8", target=Top1Target(0.1, [x]), output_index=0
        )


def test_formats_are_mixed_per_layer() -> None:
    """FP32, FP16 and INT8 in one model."""
    sim = make_sim(default_output_bw=8, default_param_bw=8)
    metric = Closeness()
    found = auto_mixed_precision(
        sim,
        ((32, FLOAT), (32, FLOAT)),
        ["fp16", "int8"],
        target=0.0005,
        evaluate=metric,
        skip_breaking=True,
        progress=False,
    )
    assert found.baseline_score == found.fp32_score == 0
    assert set(bits(sim).values()) == {"fp16", "int8"}
    assert metric(sim.model) >= -0.0005
    assert 1 / 16 < found.chosen.cost < 1 / 4


def test_search_is_limited_as_asked() -> None:
    sim = make_sim()
    found = narrow(sim, None, op_types=["Gemm"])
    assert [str(row[2]) for row in found] == ["/mean_0 + fc.weight"]
    assert {n for n, p in bits(sim).items() if p == "int4"} == {
        "/mean_0",
        "fc.weight",
    }

    sim = make_sim()
    found = narrow(sim, None, max_narrowed=2)
    assert len(found) == 2
    best = [item.group for item in found.sensitivities[:2]]
    assert [row[2] for row in found] == best

    sim = make_sim()
    found = narrow(sim, None, op_types=["conv2d"], exclude="conv1")
    assert {name for row in found for name in row[2].parameter_quantizers} == {
        "conv2.weight"
    }


def test_results_are_written_and_taken_up_again(tmp_path: Path) -> None:
    sim = make_sim()
    first = narrow(sim, 0.012, results_dir=tmp_path)
    assert (tmp_path / "pareto_list.json").exists()
    chosen = bits(sim)
    sim = make_sim()
    again = narrow(sim, 0.012, results_dir=tmp_path, clean_start=False)
    assert again.evaluations == 0
    assert list(again) == list(first)
    assert bits(sim) == chosen


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"narrow": A16W16}, ValueError, "narrow must have fewer bits than wide"),
        ({"narrow": ("int8", "fp32")}, ValueError, "and more in nothing"),
        ({"narrow": []}, ValueError, "at least one candidate"),
        ({"narrow": ["int8", A8W8]}, ValueError, "is there twice"),
        ({"narrow": "int99"}, ValueError, r"^narrow"),
        ({"wide": 3}, TypeError, r"^wide"),
        ({"evaluate": None}, ValueError, "evaluate must be given"),
        ({"output_index": 0}, ValueError, "output_index has no effect with evaluate"),
        ({"target": L2Target(1, [])}, ValueError, "evaluate has no effect"),
        ({"target": "much"}, TypeError, "target must be a number"),
        ({"target": None, "skip_breaking": True}, ValueError, "without a target"),
        ({"clean_start": False}, ValueError, "without a results_dir"),
        ({"max_narrowed": 1.5}, TypeError, "max_narrowed must be an int"),
        ({"max_narrowed": -1}, ValueError, "max_narrowed must be at least 0"),
        ({"op_types": "Conv"}, TypeError, "must be a list"),
        ({"op_types": ["Einsum"]}, ValueError, r"the model has no \['Einsum'\]"),
    ],
)
def test_arguments_are_checked(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    sim = make_sim()
    before = sim.precisions()
    arguments = {
        "wide": A16W16,
        "narrow": A8W8,
        "target": 0.1,
        "evaluate": Closeness(),
        "progress": False,
        **options,
    }
    with pytest.raises(error, match=message):
        auto_mixed_precision(sim, **arguments)
    assert sim.precisions() == before


def test_output_index_is_checked() -> None:
    for index, error in ((-1, ValueError), ("0", TypeError), (True, TypeError)):
        with pytest.raises(error, match="output_index must be"):
            EvalCallbackFactory([images()], output_index=index)  # type: ignore[arg-type]


def test_a_failing_metric_leaves_the_simulation_as_it_was() -> None:
    sim = make_sim()
    before = sim.precisions()
    calls = 0

    def failing(model: nn.Module) -> float:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyError("out of data")
        return -9.0 if calls == 3 else 0.0

    with pytest.raises(KeyError, match="out of data"):
        narrow(sim, 5.0, evaluate=failing)
    assert sim.precisions() == before
    with pytest.raises(RuntimeError, match="must be a number, got nan"):
        narrow(sim, 0.1, evaluate=lambda model: float("nan"))


def test_wide_must_be_a_kernel(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(
        """{"defaults": {"ops": {"is_output_quantized": "True"},
        "params": {"is_quantized": "True"}}, "params": {}, "supergroups": [],
        "model_input": {"is_input_quantized": "True"}, "model_output": {},
        "op_type": {"Conv": {"supported_kernels": [
            {"activation": {"bitwidth": 8, "dtype": "int"},
             "param": {"bitwidth": 8, "dtype": "int"}}]}}}"""
    )
    sim = make_sim(default_output_bw=8, default_param_bw=8, config_file=config)
    with pytest.raises(ValueError, match="wide=.* is not among the kernels"):
        auto_mixed_precision(
            sim, "int16", "int8", target=1.0, evaluate=Closeness(), progress=False
        )
    auto_mixed_precision(
        sim,
        "int16",
        "int8",
        target=1.0,
        evaluate=Closeness(),
        use_all_amp_candidates=True,
        forward_pass_callback=forward_pass,
        progress=False,
    )
    assert set(bits(sim).values()) == {"int8"}
