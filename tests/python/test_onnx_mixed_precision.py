# SPDX-License-Identifier: BSD-3-Clause
"""Mixed precision of ONNX models, found and asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import samples, small_network

from aimetpp.common.defs import CallbackFunc, QuantizationDataType
from aimetpp.onnx import QuantizationSimModel
from aimetpp.onnx.amp.quantizer_groups import QuantizerGroup, find_quantizer_group
from aimetpp.onnx.defs import DataLoader
from aimetpp.onnx.mixed_precision import (
    EvalCallbackFactory,
    GreedyMixedPrecisionAlgo,
    MixedPrecisionConfigurator,
    choose_mixed_precision,
)

INT = QuantizationDataType.int
WIDE, NARROW = ((16, INT), (16, INT)), ((8, INT), (8, INT))
MACS = {"w1": 3888, "w2": 5184, "w3": 720}  # of one sample


def forward(session: Any) -> None:
    session.run(None, {"x": samples()})


@pytest.fixture
def sim() -> QuantizationSimModel:
    made = QuantizationSimModel(
        small_network(), default_param_bw=16, default_activation_bw=16
    )
    made.compute_encodings(forward)
    return made


def choose(
    sim: QuantizationSimModel, folder: Path, score: Any, drop: Any, **options: Any
) -> Any:
    return choose_mixed_precision(
        sim,
        [WIDE, NARROW],
        score,
        score,
        drop,
        folder,
        True,
        forward,
        **{"progress": False, **options},
    )


def test_groups_are_named_by_tensors(sim):
    quantizers, groups = find_quantizer_group(sim)
    assert [group.to_list() for group in groups] == [
        [("activation", "x"), ("weight", "w1")],
        [("activation", "r1"), ("weight", "w2")],
        [("activation", "c2")],
        [("activation", "s"), ("weight", "w3")],
        [("activation", "y")],
    ]
    assert groups[0] == QuantizerGroup(("w1",), ("x",), ("conv1",))
    assert sorted(quantizers) == ["c2", "r1", "s", "w1", "w2", "w3", "x", "y"]
    assert groups == sim.quantizer_groups()


def test_a_group_changes_its_quantizers(sim):
    quantizers, groups = find_quantizer_group(sim)
    group = groups[1]
    assert group.get_candidate(quantizers) == WIDE
    group.set_quantizers_to_candidate(quantizers, NARROW)
    assert group.get_candidate(quantizers) == NARROW
    assert [q.bitwidth for q in group.get_activation_quantizers(quantizers)] == [8]
    assert [q.bitwidth for q in group.get_param_quantizers(quantizers)] == [8]
    assert len(group.get_active_quantizers(quantizers)) == 2
    assert sim.precisions().count("int8") == 2


def test_the_quantizers_of_tensors_serve_a_group_too(sim):
    group = find_quantizer_group(sim)[1][1]
    quantizers = sim.qc_quantize_op_dict
    assert group.get_candidate(quantizers) == WIDE
    group.set_quantizers_to_candidate(quantizers, NARROW)
    assert [quantizers[name].precision for name in ("r1", "w2")] == ["int8", "int8"]
    assert sim.precisions().count("int8") == 2
    sim.apply_precisions(["fp32"] * len(sim.precisions()))
    assert set(sim.qc_quantize_op_dict.values()) == {None}
    with pytest.raises(
        TypeError, match="must come from find_quantizer_group, got dict"
    ):
        group.set_quantizers_to_candidate(dict(quantizers), NARROW)


def test_bit_ops_are_macs_times_bits(sim):
    assert sim.bit_ops() == sum(MACS.values()) * 16 * 16
    quantizers, groups = find_quantizer_group(sim)
    groups[1].set_quantizers_to_candidate(quantizers, NARROW)
    assert sim.bit_ops() == (MACS["w1"] + MACS["w3"]) * 256 + MACS["w2"] * 64


# ----- search -----


def test_the_search_sees_the_session_and_leaves_the_sim_at_the_choice(sim, tmp_path):
    seen = set()

    def score(session: Any) -> float:
        # conv2's group costs 3, fc's 2, each other one 1.
        seen.add(id(session))
        (output,) = session.run(None, {"x": samples(2)})
        assert output.shape == (2, 5)
        narrow = {
            name for name, q in sim.qc_quantize_op_dict.items() if q and q.bitwidth == 8
        }
        weights = {"r1": 3.0, "s": 2.0}
        return 20 - sum(weights.get(n, 1.0) for n in narrow if not n.startswith("w"))

    result = choose(sim, tmp_path, CallbackFunc(score), 3.0)
    assert seen == {id(sim.session)}
    assert result.fp32_score == 20 and result.baseline_score == 20
    # conv1's group costs 1; of the two other layers none fits beside the groups of c2
    # and y, which come first or save nothing.
    now = zip(labels(sim), sim.precisions(), strict=True)
    at_8 = {name for name, precision in now if precision == "int8"}
    assert {"x", "w1"} <= at_8 and at_8.isdisjoint({"r1", "w2", "s", "w3"})
    total = sum(MACS.values()) * 256
    assert result.chosen.cost == pytest.approx(sim.bit_ops() / total)
    info = dict(json.loads((tmp_path / "amp_info_list.json").read_text()))
    assert info["final relative bitops"] == pytest.approx(result.chosen.cost)
    assert all(isinstance(entry[2], QuantizerGroup) for entry in result)


def labels(sim: QuantizationSimModel) -> list[str]:
    return [entry.label for entry in sim._bank.entries]


def test_include_and_exclude_take_names_of_nodes_and_tensors(sim, tmp_path):
    def score(session: Any) -> float:
        forward(session)
        return 1.0

    choose(sim, tmp_path, score, None, include=["conv*", "s"], exclude="w2")
    at_8 = [
        n for n, p in zip(labels(sim), sim.precisions(), strict=True) if p == "int8"
    ]
    assert at_8 == ["x", "w1", "c2", "s", "w3"]


def test_a_second_run_reuses_the_first_ones_scores(sim, tmp_path):
    calls = []

    def score(session: Any) -> float:
        calls.append(1)
        return float(len(session.get_inputs()))

    choose(sim, tmp_path, score, None)
    before = len(calls)
    sim.apply_precisions(["int16"] * len(sim.precisions()))
    again = choose_mixed_precision(
        sim,
        [WIDE, NARROW],
        score,
        score,
        None,
        tmp_path,
        False,
        forward,
        progress=False,
    )
    assert len(calls) == before
    assert again.evaluations == 0


def test_convert_ops_are_reduced_and_each_alpha_exported(sim, tmp_path, monkeypatch):
    monkeypatch.setattr(GreedyMixedPrecisionAlgo, "ENABLE_CONVERT_OP_REDUCTION", True)
    score = EvalCallbackFactory([samples()]).sqnr(sim)
    result = choose(sim, tmp_path, score, None)
    assert [alpha.alpha for alpha in result.alphas] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert len(list(tmp_path.glob("*.encodings"))) == 6


def test_the_estimate_counts_what_is_left_to_evaluate(sim, tmp_path):
    score = EvalCallbackFactory([samples()]).sqnr(sim)
    algo = GreedyMixedPrecisionAlgo(
        sim, [WIDE, NARROW], score, score, tmp_path, True, forward, progress=False
    )
    before = sim.precisions()
    phases = algo.estimate(None).phases
    assert sim.precisions() == before
    made = algo.run(None).summary.evaluations
    for phase in ("sensitivity", "front"):
        assert phases[phase].least == phases[phase].most == made[phase] > 0


# ----- metrics -----


def test_sqnr_compares_the_session_with_the_float_model(sim):
    x = samples()
    with sim.quantizers_off():
        expected = sim.session.run(None, {"x": x})[0].astype(np.float64)
    got = sim.session.run(None, {"x": x})[0]
    wanted = 10 * np.log10((expected**2).sum() / ((expected - got) ** 2).sum())
    for batches in ([x], [x[:5], x[5:]], [{"x": x}], [(x, np.zeros(8))]):
        metric = EvalCallbackFactory(batches).sqnr(sim, num_samples=8)
        assert metric(sim.session) == pytest.approx(wanted, rel=1e-4)
    fewer = EvalCallbackFactory([x]).sqnr(sim, num_samples=3)(sim.session)
    assert fewer != pytest.approx(wanted, rel=1e-4)


def test_a_loss_is_a_function_of_tensors_or_of_arrays(sim):
    x, labels = samples(), np.arange(8) % 3
    y = sim.session.run(None, {"x": x})[0]
    picked = -float(np.mean(y[np.arange(8), labels]))

    def of_arrays(output: Any, classes: Any) -> Any:
        if not isinstance(output, np.ndarray):
            raise TypeError("arrays only")
        return float(np.mean(output[np.arange(len(classes)), classes]))

    def of_tensors(output: Any, classes: Any) -> Any:
        return output.gather(1, classes[:, None]).mean()

    for loss in (of_arrays, of_tensors):
        metric = EvalCallbackFactory([(x, labels)]).loss(loss, sim)
        assert metric(sim.session) == pytest.approx(picked, rel=1e-5)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        EvalCallbackFactory([(x, labels)]).loss(lambda o, _: o.nothing, sim)(
            sim.session
        )


def test_a_forward_function_gets_the_session_and_arrays(sim):
    def half(session: Any, batch: np.ndarray) -> np.ndarray:
        assert isinstance(batch, np.ndarray)
        return session.run(None, {"x": batch})[0] / 2

    whole = EvalCallbackFactory([samples()]).l2(sim)(sim.session)
    assert EvalCallbackFactory([samples()], half).l2(sim)(sim.session) == pytest.approx(
        whole / 2, rel=1e-6
    )


def test_the_data_loader_cuts_its_data_into_batches():
    loader = DataLoader(np.arange(10), batch_size=4, iterations=2)
    assert [batch.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(loader) == 2
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        DataLoader(np.arange(10), 0, 1)


# ----- requests -----


def changed(sim: QuantizationSimModel, *requests: tuple[Any, ...]) -> dict[str, str]:
    configurator = MixedPrecisionConfigurator(sim)
    for request in requests:
        configurator.set_precision(*request)
    configurator.apply(log_file=None)
    now = zip(labels(sim), sim.precisions(), strict=True)
    return {name: precision for name, precision in now if precision != "int16"}


def test_a_node_is_its_inputs_outputs_and_params(sim):
    assert changed(sim, ("conv2", "int8", {"weight": "int4"})) == {
        "r1": "int8",
        "c2": "int8",
        "w2": "int4",
    }


@pytest.mark.parametrize("arg", ["r1", "r?", "c2", "s", "w2", "w[2]", "y"])
def test_a_tensor_is_itself_alone(sim, arg):
    name = arg.replace("?", "1").replace("[2]", "2")
    assert changed(sim, (arg, "int4")) == {name: "int4"}


def test_params_with_a_tensor_are_those_of_its_node(sim):
    assert changed(sim, ("w3", None, {"weight": "int4"})) == {"w3": "int4"}
    # Of conv2, which makes c2, and of conv1, which reads x.
    assert changed(sim, ("c2", "int8", {"weight": "int8"}))["w2"] == "int8"
    assert changed(sim, ("x", "int8", {"weight": "fp16"}))["w1"] == "fp16"


def test_stored_tensors_count_in_a_glob_that_matches_nothing_else(sim):
    before = sim.precisions()
    assert changed(sim, ("w*", "int4")) == {"w1": "int4", "w2": "int4", "w3": "int4"}
    sim.apply_precisions(before)
    got = changed(sim, ("[cw]*", "fp16"))  # conv1, conv2, what they make, and weights
    assert {name for name in got if got[name] == "fp16"} == {"x", "r1", "c2"}


def test_a_tensor_has_one_precision(sim):
    configurator = MixedPrecisionConfigurator(sim)
    with pytest.raises(ValueError, match="r1 is a tensor, which has one precision"):
        configurator.set_precision("r1", ["int8"])
    with pytest.raises(ValueError, match="w1 is stored: give its precision or param"):
        configurator.set_precision("w1", "int8", {"weight": "int8"})


def test_both_nodes_of_a_linear_layer_mean_it(sim):
    assert changed(sim, ("fc_bias", "fp16", {"weight": "int8"})) == {
        "s": "fp16",
        "w3": "int8",
        "y": "fp16",
    }


def test_op_types_and_globs(sim):
    assert changed(sim, ("Conv", None, {"weight": "int8"})) == {
        "w1": "int8",
        "w2": "int8",
    }
    assert changed(sim, ("conv*", None, {"weight": "int4"})) == {
        "w1": "int4",
        "w2": "int4",
    }


def test_model_inputs_and_outputs_by_name(sim):
    configurator = MixedPrecisionConfigurator(sim)
    configurator.set_model_input_precision({"x": "int8"})
    configurator.set_model_output_precision("fp16")
    configurator.apply(log_file=None)
    assert sim.pinned_sites() == ["x", "y"]
    assert sim.precisions()[0] == "int8" and sim.precisions()[-1] == "fp16"


def test_an_unknown_name_is_an_error_with_near_ones(sim):
    with pytest.raises(ValueError, match="'conv3'; near to it: conv[12], conv[12]"):
        MixedPrecisionConfigurator(sim).set_precision("conv3", "int8")


def test_a_name_that_two_nodes_share_is_none_of_them():
    model = small_network()
    for node in model.graph.node:
        node.name = "conv" if node.op_type == "Conv" else ""
    sim = QuantizationSimModel(model, samples(1), default_activation_bw=16)
    with pytest.raises(ValueError, match="'conv'; near to it: conv_[02], conv_[02]"):
        MixedPrecisionConfigurator(sim).set_precision("conv", "int8")
    assert changed(sim, ("conv_2", "int8"))["r1"] == "int8"
    names = [node.name for node in sim.model.graph.node]
    assert len(set(names)) == len(names)
    assert names[:3] == ["conv_0", "Relu_1", "conv_2"]
