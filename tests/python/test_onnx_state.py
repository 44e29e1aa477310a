# SPDX-License-Identifier: BSD-3-Clause
"""What carries the state of an ONNX simulation to another one: encodings files and
precision profiles; and the warning of ops without a kernel.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_models import samples, small_network

from aimetpp import mixed_precision, quantsim
from aimetpp.onnx import QuantizationSimModel
from aimetpp.onnx.mixed_precision import MixedPrecisionConfigurator
from aimetpp.onnx.quantsim import load_encodings_to_sim

PRECISIONS = {"x": "int16", "w1": "int4", "r1": "fp16", "s": "bf16", "c2": "fp32"}


def fresh(**options: Any) -> QuantizationSimModel:
    return QuantizationSimModel(small_network(), **options)


def calibrated(**options: Any) -> QuantizationSimModel:
    sim = fresh(**options)
    sim.compute_encodings(lambda session: session.run(None, {"x": samples()}))
    return sim


def mixed() -> QuantizationSimModel:
    sim = calibrated()
    labels = [entry.label for entry in sim._bank.entries]
    found = [
        PRECISIONS.get(n, p) for n, p in zip(labels, sim.precisions(), strict=True)
    ]
    sim.apply_precisions(found)
    return sim


def output(sim: QuantizationSimModel) -> np.ndarray:
    return sim.session.run(None, {"x": samples()})[0]


@pytest.mark.parametrize("version", ["0.6.1", "1.0.0", "2.0.0"])
@pytest.mark.parametrize("config", ["default", "default_per_tensor"])
def test_an_exported_file_gives_the_same_simulation(
    version: str, config: str, tmp_path: Path
) -> None:
    sim = calibrated(config_file=config) if config != "default" else mixed()
    sim.export(tmp_path, "m", encoding_version=version, export_int32_bias=True)
    other = fresh(config_file=config)
    load_encodings_to_sim(other, tmp_path / "m.encodings")
    assert other.precisions() == sim.precisions()
    np.testing.assert_array_equal(output(other), output(sim))
    before = {name: q.extra_repr() for name, q in sim.named_quantizers()}
    assert {name: q.extra_repr() for name, q in other.named_quantizers()} == before


def test_part_of_a_file_and_names_that_do_not_match(tmp_path: Path) -> None:
    sim = mixed()
    sim.export(tmp_path, "m", encoding_version="0.6.1")
    content = json.loads((tmp_path / "m.encodings").read_text())
    activations = content["activation_encodings"]
    content["activation_encodings"] = {"x": activations["x"]}
    content["param_encodings"] = {}
    other = fresh()
    other.load_encodings(content)
    assert other.precisions() == ["int16", *fresh().precisions()[1:]]
    assert not other.is_calibrated() and other.qc_quantize_op_dict["x"].is_initialized()
    load_encodings_to_sim(other, content)
    assert set(other.precisions()[1:]) == {"fp32"}

    content["activation_encodings"]["elsewhere"] = activations["x"]
    before = other.precisions()
    with pytest.raises(RuntimeError, match="no tensors of the model: elsewhere"):
        other.load_encodings(content)
    assert other.precisions() == before
    other.load_encodings(content, strict=False)
    content["activation_encodings"] = {"f": activations["x"]}  # what a Flatten makes
    with pytest.raises(RuntimeError, match="no quantizer stands at any"):
        other.load_encodings(content)
    content["activation_encodings"] = {}
    content["param_encodings"] = {"w1": activations["x"]}
    with pytest.raises(RuntimeError, match="w1 has 4 channels, the file has 1"):
        other.load_encodings(content)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"version": "3.0"},
        {"version": "1.0.0", "activation_encodings": {"conv1": {"output": {}}}},
        {"version": "2.0.0", "encodings": [{"name": "x"}]},
        {"version": "2.0.0"},
    ],
)
def test_what_is_no_encodings_file_is_said(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "wrong.encodings"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"load_encodings: .*wrong.encodings"):
        fresh().load_encodings(path)
    path.write_text("no JSON")
    with pytest.raises(ValueError, match="is not JSON"):
        fresh().load_encodings(path)
    with pytest.raises(TypeError, match="must be a path or a dict"):
        fresh().load_encodings(3)


def test_frozen_weights_keep_their_ranges(tmp_path: Path) -> None:
    sim = calibrated()
    sim.export(tmp_path, "m")
    content = json.loads((tmp_path / "m.encodings").read_text())
    for entry in content["param_encodings"]:
        entry["scale"] = [2 * scale for scale in entry["scale"]]
    (tmp_path / "m.encodings").write_text(json.dumps(content))
    other = fresh()
    other.set_and_freeze_param_encodings(tmp_path / "m.encodings")
    assert not other.qc_quantize_op_dict["x"].is_initialized()
    other.compute_encodings(lambda session: session.run(None, {"x": samples()}))
    for name in ("w1", "w2", "w3"):
        got, old = (s.qc_quantize_op_dict[name].get_scale() for s in (other, sim))
        np.testing.assert_array_equal(got.detach(), 2 * old.detach())


def test_a_profile_carries_precisions_and_pins(tmp_path: Path) -> None:
    sim = mixed()
    requests = MixedPrecisionConfigurator(sim)
    requests.set_precision("fc", "int16", {"weight": "int16"})
    requests.apply(log_file=None)
    sim.save_precision_profile(tmp_path / "profile.json")
    other = calibrated()
    other.load_precision_profile(tmp_path / "profile.json")
    assert other.precisions() == sim.precisions()
    assert other.pinned_sites() == sim.pinned_sites() != []
    np.testing.assert_array_equal(output(other), output(sim))
    content = json.loads((tmp_path / "profile.json").read_text())
    del content["precisions"]["w1"]
    (tmp_path / "profile.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="without an entry: w1"):
        other.load_precision_profile(tmp_path / "profile.json")


def test_ops_without_a_kernel_are_warned_of(tmp_path: Path) -> None:
    kernel = {
        "activation": {"bitwidth": 16, "dtype": "int"},
        "param": {"bitwidth": 8, "dtype": "int"},
    }
    config = {
        "defaults": {
            "ops": {"is_output_quantized": "True"},
            "params": {"is_quantized": "True"},
        },
        "params": {},
        "op_type": {"Conv": {"supported_kernels": [kernel]}},
        "supergroups": [],
        "model_input": {"is_input_quantized": "True"},
        "model_output": {},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    with pytest.warns(RuntimeWarning, match="no kernel for 2 ops.*conv1") as found:
        fresh(config_file=path)
    assert found[0].filename == __file__
    assert "default_activation_bw" in str(found[0].message)


def test_each_front_has_a_configurator_of_its_own() -> None:
    other = mixed_precision.MixedPrecisionConfigurator
    with pytest.raises(TypeError, match=r"QuantizationSimModel of its kind, got aimet"):
        other(fresh())  # type: ignore[arg-type]
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    sim = quantsim.QuantizationSimModel(model, torch.ones(1, 2))
    with pytest.raises(TypeError, match=r"got aimetpp.quantsim.simulation"):
        MixedPrecisionConfigurator(sim)
