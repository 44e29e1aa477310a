# SPDX-License-Identifier: BSD-3-Clause
"""choose_mixed_precision: wrong arguments, failing callbacks, chosen groups."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from amp_models import (
    A4W4,
    A8W4,
    A8W8,
    A8W16,
    A16W16,
    Closeness,
    assert_untouched,
    bits,
    choose,
    forward_pass,
    make_sim,
)


def test_defect_08_nan_scores_name_where(tmp_path: Path) -> None:
    """AIMET accepts NaN and narrows layers all the same."""
    sim = make_sim()
    metric = Closeness()

    def nan_at_conv2(model: torch.nn.Module) -> float:
        quantizer = model.conv2.param_quantizers["weight"]
        if quantizer is not None and quantizer.bitwidth == 4:
            return math.nan
        return metric(model)

    assert_untouched(
        sim,
        lambda: choose(sim, tmp_path, metric=nan_at_conv2),
        RuntimeError,
        r"phase-1 score must be a number, got nan for group .*conv2\.weight.* alone "
        r"at candidate \(\(4, int\), \(4, int\)\)",
    )
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, OSError])
def test_defect_20_exception_in_a_callback_leaves_the_sim_as_it_was(
    error: type, tmp_path: Path
) -> None:
    sim = make_sim()
    quantizer = sim.model.fc.output_quantizers[0]
    quantizer.set_range(-3.0, 5.0)  # not what calibration gave
    metric = Closeness()

    def fails(model: torch.nn.Module) -> float:
        if metric.calls == 6:
            raise error("in the callback")
        return metric(model)

    assert_untouched(
        sim, lambda: choose(sim, tmp_path, metric=fails), error, "in the callback"
    )


def test_a_range_set_by_hand_returns_with_its_precision(tmp_path: Path) -> None:
    sim = make_sim(default_output_bw=8, default_param_bw=8)
    quantizer = sim.model.fc.output_quantizers[0]
    quantizer.set_range(-3.0, 5.0)
    expected = quantizer.get_encodings()
    seen = []

    def spy(model: torch.nn.Module) -> float:
        current = model.fc.output_quantizers[0]
        if current is not None and current.bitwidth == 8:
            seen.append(current.get_encodings())
        return 0.0

    choose(sim, tmp_path, candidates=[A16W16, A8W8], metric=spy)
    assert len(seen) > 1 and all(encoding == expected for encoding in seen)
    assert sim.model.fc.output_quantizers[0].get_encodings() == expected


def test_results_that_are_no_number_name_the_callback(tmp_path: Path) -> None:
    for value in (None, "0.9", [1.0], torch.zeros(2)):
        sim = make_sim()

        def evaluate(model: torch.nn.Module, value: Any = value) -> Any:
            return value

        assert_untouched(
            sim,
            lambda sim=sim, evaluate=evaluate: choose(sim, tmp_path, metric=evaluate),
            TypeError,
            r"eval_callback_for_phase2 \(.*evaluate\) must return a number",
        )


def test_defect_12_uncalibrated_simulation_is_named(tmp_path: Path) -> None:
    sim = make_sim(calibrate=False)
    with pytest.raises(RuntimeError, match=r"calibrated simulation.*conv1\.input\.0"):
        choose(sim, tmp_path)
    metric = Closeness()
    result = choose(sim, tmp_path, metric=metric, forward_pass_callback=forward_pass)
    assert result.evaluations == metric.calls > 0


@pytest.mark.parametrize(
    ("candidates", "error", "match"),
    [
        ([], ValueError, "candidates must not be empty"),
        (None, TypeError, "candidates must be a list"),
        ([(8, 8)], TypeError, r"candidates\[0\]"),
        ([A8W8, ((8, "int"),)], TypeError, r"candidates\[1\]"),
        ([((1, "int"), (8, "int"))], ValueError, "between 2 and 32, got 1"),
        (
            [((8, "float"), (8, "float"))],
            ValueError,
            "an 8-bit float has 4 or 5 exponent bits",
        ),
        ([((8, "uint"), (8, "int"))], TypeError, r"candidates\[0\] must be .*a pair"),
        ([((8.0, "int"), (8, "int"))], TypeError, "bitwidth must be an int"),
    ],
)
def test_wrong_candidates(
    candidates: Any, error: type, match: str, tmp_path: Path
) -> None:
    sim = make_sim()
    metric = Closeness()
    with pytest.raises(error, match=match):
        choose(sim, tmp_path, candidates=candidates, metric=metric)
    assert metric.calls == 0


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"drop": "0.1"}, TypeError, "allowed_accuracy_drop must be a number"),
        ({"drop": math.nan}, ValueError, "allowed_accuracy_drop"),
        ({"amp_search_algo": 7}, ValueError, "amp_search_algo must be"),
        ({"eval_callback_for_phase1": 3}, TypeError, "eval_callback_for_phase1"),
        ({"eval_callback_for_phase2": None}, TypeError, "eval_callback_for_phase2"),
        ({"forward_pass_callback": 3}, TypeError, "forward_pass_callback"),
        ({"progress": "bar"}, TypeError, "progress must be"),
        ({"clean_start": "no"}, TypeError, "clean_start must be True or False"),
        ({"phase2_reverse": "yes"}, TypeError, "phase2_reverse must be True or False"),
        ({"convert_op_reduction": 3}, TypeError, "convert_op_reduction must be True"),
        ({"convert_costs": {}}, ValueError, "convert_costs has no effect"),
        ({"max_evaluations": 0}, ValueError, "max_evaluations must be 1 or more"),
        ({"max_evaluations": 2.5}, TypeError, "max_evaluations must be a whole"),
        ({"distributed": "yes"}, TypeError, "distributed must be True or False"),
        ({"distributed": True}, ValueError, "needs more than one rank: start"),
        ({"memory_budget": -5}, ValueError, "memory_budget must not be negative"),
        ({"include": "conv9"}, ValueError, "include: no quantizer group .*'conv9'"),
        ({"exclude": 3}, TypeError, "exclude must be a list"),
        ({"exclude": "*"}, ValueError, "leave no quantizer group"),
        ({"exclude": torch.nn.ReLU()}, ValueError, "exclude: not a module of sim"),
    ],
)
def test_wrong_arguments_evaluate_nothing(
    options: dict[str, Any], error: type, match: str, tmp_path: Path
) -> None:
    sim = make_sim()
    metric = Closeness()
    assert_untouched(
        sim, lambda: choose(sim, tmp_path, metric=metric, **options), error, match
    )
    assert metric.calls == 0


def test_results_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sim = make_sim()
    for error in (ValueError, OSError):
        assert_untouched(
            sim,
            lambda: choose(sim, tmp_path / "file" / "results"),
            error,
            r"results_dir '.*file/results' must be a folder that can be written",
        )


def test_not_a_simulation(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="sim must be a QuantizationSimModel"):
        choose(torch.nn.ReLU(), tmp_path)


# -- include and exclude -------------------------------------------------------


@pytest.mark.parametrize("pick", ["conv2", "conv?", "fc.weight", "module", "group"])
def test_exclude_keeps_precisions(pick: str, tmp_path: Path) -> None:
    sim = make_sim(default_output_bw=8, default_param_bw=8)
    groups = [g for g in sim.quantizer_groups() if "conv2.weight" in str(g)]
    items = {"module": sim.model.conv2, "group": groups[0]}
    choose(sim, tmp_path, candidates=[A16W16, A8W4], exclude=items.get(pick, pick))
    now = bits(sim)
    assert ("int8" in now.values()) and now["fc.weight"] == (
        "int8" if pick == "fc.weight" else "int4"
    )
    assert now["conv2.weight"] == ("int4" if pick == "fc.weight" else "int8")


def test_include_searches_only_these(tmp_path: Path) -> None:
    sim = make_sim()
    result = choose(sim, tmp_path, candidates=[A16W16, A4W4], include=["fc.weight"])
    assert result.summary.num_groups == 1
    now = bits(sim)
    assert now.pop("fc.weight") == "int4"
    assert "int16" in now.values()


def test_a_quantizer_that_the_user_turned_off_stays_off(tmp_path: Path) -> None:
    sim = make_sim()
    sim.model.fc.param_quantizers["weight"] = None
    result = choose(sim, tmp_path)
    assert sim.model.fc.param_quantizers["weight"] is None
    assert all("fc.weight" not in str(row[2]) for row in result)


def test_defect_04_supported_kernels_hold_in_every_state(tmp_path: Path) -> None:
    """AIMET leaves a conv that only knows 8 bits at 16."""
    config = json.loads(
        (Path(__file__).parents[2] / "aimetpp/configs/default.json").read_text()
    )
    kernel = {
        "activation": {"bitwidth": 8, "dtype": "int"},
        "param": {"bitwidth": 8, "dtype": "int"},
    }
    config.setdefault("op_type", {}).setdefault("Gemm", {})["supported_kernels"] = [
        kernel
    ]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    sim = make_sim(config_file=path, default_output_bw=8, default_param_bw=8)
    seen = set()
    metric = Closeness()

    def spy(model: torch.nn.Module) -> float:
        quantizer = model.fc.param_quantizers["weight"]
        seen.add(None if quantizer is None else quantizer.bitwidth)
        return metric(model)

    choose(sim, tmp_path / "r", candidates=[A8W8, A4W4], metric=spy)
    assert seen == {None, 8}
    with pytest.raises(ValueError, match=r"op fc \(Gemm\) supports int8/int8"):
        choose(sim, tmp_path / "r", candidates=[A16W16, A8W16], metric=spy)
    seen.clear()
    choose(
        sim,
        tmp_path / "r",
        candidates=[A16W16, A8W8],
        use_all_amp_candidates=True,
        metric=spy,
    )
    assert 16 in seen
