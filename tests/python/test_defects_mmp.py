# SPDX-License-Identifier: BSD-3-Clause
"""Manual mixed precision without the known defects of AIMET 2.42, one test each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from mmp_models import Embedder, Net, apply_one, changed, make_sim

from aimetpp.mixed_precision import MixedPrecisionConfigurator


@pytest.mark.parametrize("child_first", [True, False])
def test_defect_21_latest_wins_in_both_orders(child_first):
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    asks = [("conv3", "int16"), ("relu1", "int4")]
    for name, precision in asks if child_first else reversed(asks):
        mmp.set_precision(name, precision)
    mmp.apply(None, strict=False)
    assert changed(sim)["relu1"] == ("int4" if child_first else "int16")


def test_defect_22_a_conflict_changes_that_tensor_only():
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision(sim.model.conv3, "int16", {"weight": "int16"})
    mmp.set_precision(sim.model.block.conv, "int4")
    report = mmp.apply(None, strict=False)
    assert changed(sim) == {
        "relu1": "int4",
        "block.relu": "int4",
        "block/add_0": "int16",
        "conv3.weight": "int16",
    }
    assert [(line.request, line.subject) for line in report.overruled] == [
        (1, "conv3 input 0")
    ]


def test_defect_23_an_output_is_raised_by_its_own_request():
    sim = make_sim()
    apply_one(sim, sim.model.relu1, "int16")
    assert sim.model.relu1.output_quantizers[0].bitwidth == 16
    assert sim.model.conv1.input_quantizers[0].bitwidth == 8


@pytest.mark.parametrize("strict", [True, False])
def test_defect_24_functional_parent(strict):
    class Functional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x * x + 1)

    sim = make_sim(Functional(), torch.randn(2, 4))
    apply_one(sim, sim.model.fc, "int16", strict=strict)
    assert changed(sim) == {"/add_0": "int16", "fc": "int16"}


def test_defect_25_what_cannot_change_anything_says_so():
    def fresh():
        return make_sim(Embedder(), (torch.tensor([[1, 2]]), torch.randn(1, 2, 4)))

    sim = fresh()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_model_input_precision("int16")  # the integer input is passed over
    mmp.apply(None)
    assert list(changed(sim).values()) == ["int16"]

    mmp = MixedPrecisionConfigurator(fresh())
    mmp.set_model_input_precision(["int16", None])
    with pytest.raises(ValueError, match="request 1 .*entry 0 .*no quantizer"):
        mmp.apply(None)

    sim = make_sim()
    for args, message in [
        (("fc", None, {"wieght": "int4"}), 'no parameter "wieght"; .*weight'),
        (("fc", None, {"bias": "int4"}), '"bias" has no quantizer'),
        ((torch.nn.LSTM, "int8"), r"request 1 \(type LSTM.*matches no layer"),
    ]:
        with pytest.raises(ValueError, match=message):
            apply_one(sim, *args)
        report = apply_one(sim, *args, strict=False)
        assert len(report.overruled) == 1 and changed(sim) == {}


def test_defect_26_ranges_follow_from_kept_statistics():
    data = torch.randn(4, 3, 8, 8)
    sim = make_sim()
    sim.compute_encodings(lambda model: model(data))
    apply_one(sim, "conv3", "int4", {"weight": "int4"})
    # The slow way: the new precision first, then data.
    slow = make_sim()
    apply_one(slow, "conv3", "int4", {"weight": "int4"})
    slow.compute_encodings(lambda model: model(data))
    for found, expected in [
        (sim.model.relu1.output_quantizers[0], slow.model.relu1.output_quantizers[0]),
        (
            sim.model.conv3.param_quantizers["weight"],
            slow.model.conv3.param_quantizers["weight"],
        ),
    ]:
        assert found is not expected and found.bitwidth == 4
        torch.testing.assert_close(found.get_scale(), expected.get_scale())
        torch.testing.assert_close(found.get_min(), expected.get_min())
    # A symmetric 4-bit grid has 8 steps below zero and 7 above.
    weight = sim.model.conv3.weight.detach().flatten(1)
    scale = torch.maximum(weight.amax(1) / 7, -weight.amin(1) / 8)
    found = sim.model.conv3.param_quantizers["weight"].get_scale().detach()
    torch.testing.assert_close(found.flatten(), scale)


def test_defect_26_an_uncalibrated_sim_stays_uncalibrated():
    sim = make_sim()
    apply_one(sim, "conv3", "int16")
    assert not sim.model.relu1.output_quantizers[0].is_initialized()
    assert "relu1" in sim.uncalibrated()


def _kernels(tmp_path: Path, op_type: dict) -> str:
    config = {
        "defaults": {
            "ops": {"is_output_quantized": "True"},
            "params": {"is_quantized": "True", "is_symmetric": "True"},
        },
        "params": {"bias": {"is_quantized": "False"}},
        "op_type": op_type,
        "supergroups": [],
        "model_input": {"is_input_quantized": "True"},
        "model_output": {},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return str(path)


def test_defect_27_supported_kernels_of_weighted_and_weightless_layers(tmp_path):
    def pair(act, param=None):
        kernel = {"activation": {"bitwidth": act, "dtype": "int"}}
        if param:
            kernel["param"] = {"bitwidth": param, "dtype": "int"}
        return kernel

    config = _kernels(
        tmp_path,
        {
            "Conv": {"supported_kernels": [pair(8, 8), pair(16, 8)]},
            "Relu": {"supported_kernels": [pair(8), pair(16)]},
        },
    )
    sim = make_sim(config_file=config)
    apply_one(sim, "conv3", "int16")  # weight stays int8: a kernel exists
    apply_one(sim, "relu1", "int16")
    before = sim.precisions()
    with pytest.raises(RuntimeError, match="conv3: no supported kernel.*int4 weight"):
        apply_one(sim, "conv3", None, {"weight": "int4"})
    with pytest.raises(RuntimeError, match="block.relu: no supported kernel for int4"):
        apply_one(sim, "block.relu", "int4")
    assert sim.precisions() == before
    report = apply_one(sim, "block.relu", "int4", strict=False)
    assert any("no supported kernel" in line.detail for line in report.overruled)


def test_defect_45_no_activation_and_agreeing_siblings():
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision(sim.model.block.conv, None, {"weight": "int4"})
    mmp.set_precision(sim.model.block.relu, None)
    mmp.set_precision(sim.model.conv3, "int16")
    mmp.set_precision(sim.model.block.conv, "int16")
    mmp.apply(None)
    assert changed(sim) == {
        "relu1": "int16",
        "block.relu": "int16",
        "block.conv.weight": "int4",
        "block/add_0": "int16",
    }


def test_defect_26_a_range_is_never_of_older_data():
    sim = make_sim()
    data = torch.randn(4, 3, 8, 8)
    sim.compute_encodings(lambda model: model(data))
    apply_one(sim, "relu1", "fp32")
    apply_one(sim, "block.relu", "fp16")
    sim.compute_encodings(lambda model: model(10 * data))  # these two see nothing
    report = apply_one(sim, "*relu*", "int8")
    assert {change.quantizer: change.range for change in report.changes} == {
        "relu1": "none",
        "block.relu": "none",
    }
    assert sorted(sim.uncalibrated()) == ["block.relu", "relu1"]
    assert "Not calibrated" in str(report) and "block.relu" in str(report)
    with pytest.raises(RuntimeError, match="no range yet"):
        sim.model(data)


def test_defect_26_a_range_without_statistics_stays_and_is_told():
    sim = make_sim()
    quantizer = sim.model.relu1.output_quantizers[0]
    quantizer.set_range(0.0, 3.0)
    report = apply_one(sim, "relu1", "int4")
    assert quantizer.get_max().item() == pytest.approx(3.0)
    assert quantizer.get_scale().item() == pytest.approx(3.0 / 15)
    assert report.changes[0].range == "as it was"
    assert (
        "Set by hand, loaded or trained, so the range stays: 1 quantizer: relu1"
        in str(report)
    )


def test_defect_27_the_report_has_requests_final_state_and_conflicts(tmp_path):
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("conv3", "int16", {"weight": "int4"})
    mmp.set_precision("block.conv", "int4")
    report = mmp.apply(tmp_path / "log.txt", strict=False)
    assert [line.subject for line in report.requests] == ["conv3", "block.conv"]
    final = {line.subject: line.detail for line in report.realized}
    assert final["conv3.weight"] == "int8 -> int4"
    assert final["relu1"] == "int8 -> int4"
    assert [str(line) for line in report.overruled] == [
        "[1] conv3 input 0: int16; relu1 is int4 by request 2 (block.conv input 0)"
    ]
    untouched = {line.subject: line.detail for line in report.unchanged}
    assert untouched["fc.weight"] == "int8" and "relu1" not in untouched
    # MACs of a sample: 3*3 kernels over 8x8, 3 to 4 and 4 to 4 channels; 1x1; 32 to 5.
    conv1, block, conv3, fc = 9 * 12 * 64, 9 * 16 * 64, 16 * 64, 32 * 5
    assert report.bit_ops_before == 64 * (conv1 + block + conv3 + fc)
    # relu1 is int4 and read by both; conv3's own weight is int4; what fc reads is
    # tied to conv3's output, which is int16.
    assert report.bit_ops_after == (
        64 * conv1 + 4 * 8 * block + 4 * 4 * conv3 + 16 * 8 * fc
    )
    assert report.bit_ops_after == sim.bit_ops()


def test_defect_27_an_error_leaves_the_file_whole_and_the_requests_kept(tmp_path):
    log = tmp_path / "log.txt"
    sim = make_sim()
    first = MixedPrecisionConfigurator(sim).apply(log)
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("conv3", "int16")
    mmp.set_precision("relu1", "int4")
    with pytest.raises(RuntimeError, match="conflicting"):
        mmp.apply(log)
    assert log.read_text() == str(first) and changed(sim) == {}
    assert len(mmp.apply(log, strict=False).requests) == 2


def test_defect_45_activation_none_on_every_inner_layer():
    sim = make_sim(Net())
    mmp = MixedPrecisionConfigurator(sim)
    for name in ("conv1", "bn1", "relu1", "block", "conv3", "pool", "flat", "fc"):
        mmp.set_precision(name, None)
    mmp.apply(None)
    assert changed(sim) == {}
