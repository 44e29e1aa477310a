# SPDX-License-Identifier: BSD-3-Clause
"""Simulations of ONNX models."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from onnx_models import make_model, samples, small_network

from aimetpp.onnx import QuantizationSimModel
from aimetpp.quantization import QuantizeDequantize


def run_float(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, feeds)


def calibrated(model: onnx.ModelProto | None = None, **options) -> QuantizationSimModel:
    sim = QuantizationSimModel(model or small_network(), **options)
    sim.compute_encodings(lambda session: session.run(None, {"x": samples()}))
    return sim


def relative_error(expected: np.ndarray, got: np.ndarray) -> float:
    return float(np.abs(expected - got).max() / np.abs(expected).max())


def test_the_graph_is_that_of_the_same_layers_in_pytorch():
    sim = QuantizationSimModel(small_network())
    # conv1: 4 x 6 x 6 outputs of 27 products, conv2 of 36; fc: 5 outputs of 144.
    assert sim.graph.to_text() == (
        "in: x0\n"
        "conv1: conv2d(x0#0) -> t1#3 {weight#1, bias#2} macs=3888\n"
        "relu1: relu(t1#4) -> t2#5\n"
        "conv2: conv2d(t2#6) -> t3#8 {weight#7} macs=5184\n"
        "sum: add(t2#9, t3#10) -> t4#11\n"
        "flat: flatten(t4#12) -> t5#13 grid_preserving\n"
        "fc: linear(t5#14) -> t6#17 {weight#15, bias#16} macs=720\n"
        "out: t6\n"
    )
    on = [site.name for site in sim.sites() if site.quantizer is not None]
    assert on == ["x", "w1", "r1", "w2", "c2", "s", "w3", "y"]
    axes = {
        name: quantizer.channel_axis
        for name, quantizer in sim.qc_quantize_op_dict.items()
        if name.startswith("w")
    }
    assert axes == {"w1": 0, "w2": 0, "w3": 1}


def test_quantizers_off_is_the_model_itself():
    sim = calibrated()
    expected = run_float(small_network(), x=samples())[0]
    with sim.quantizers_off():
        np.testing.assert_array_equal(
            sim.session.run(None, {"x": samples()})[0], expected
        )
    assert relative_error(expected, sim.session.run(None, {"x": samples()})[0]) > 1e-4


def test_one_quantizer_leaves_the_rest_in_full_precision():
    sim = calibrated()
    expected = run_float(small_network(), x=samples())[0]
    precisions = ["fp32"] * len(sim.precisions())
    precisions[0] = "int24"
    sim.apply_precisions(precisions)
    assert relative_error(expected, sim.session.run(["y"], {"x": samples()})[0]) < 1e-5


# ----- numbers -----


def reference(sim: QuantizationSimModel, x: np.ndarray) -> np.ndarray:
    """The network with each quantizer called as a module."""
    quantizer = sim.qc_quantize_op_dict
    stored = {
        t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy())
        for t in sim.model.graph.initializer
    }

    def q(name: str, value: torch.Tensor) -> torch.Tensor:
        return value if quantizer[name] is None else quantizer[name](value)

    with torch.no_grad():
        conv = torch.nn.functional.conv2d
        w1, w2, w3 = (q(name, stored[name]) for name in ("w1", "w2", "w3"))
        r1 = q(
            "r1", conv(q("x", torch.from_numpy(x)), w1, stored["b1"], padding=1).relu()
        )
        s = q("s", r1 + q("c2", conv(r1, w2, padding=1)))
        return q("y", s.flatten(1) @ w3 + stored["b3"]).numpy()


@pytest.mark.parametrize(
    "precision", ["int4", "int8", "int16", "fp16", "bf16", "int24"]
)
def test_quantizers_compute_as_the_modules_do(precision):
    sim = calibrated()
    sim.apply_precisions([precision] * len(sim.precisions()))
    got = sim.session.run(None, {"x": samples()})[0]
    expected = reference(sim, samples())
    if precision in ("int4", "int8"):  # a sum's last bit may tip a rounding
        steps = np.abs(got - expected) / sim.qc_quantize_op_dict["y"].get_scale().item()
        assert steps.max() < 1.001 and (steps > 0.5).mean() < 0.05
    else:
        assert relative_error(expected, got) < 1e-3


def test_a_quantizer_at_one_tensor_is_exact():
    model = make_model(
        [helper.make_node("Relu", ["x"], ["y"], "relu")], {}, {"x": (1, 64)}, ["y"]
    )
    x = np.linspace(-3, 3, 64, dtype=np.float32)[None]
    sim = QuantizationSimModel(model)
    sim.compute_encodings(lambda s: s.run(None, {"x": np.float32([[-2, 1.5] * 32])}))
    for precision in ("int2", "int5", "int8", "int16", "int21", "int22", "int32"):
        sim.apply_precisions([precision, "fp32"])
        with torch.no_grad():
            expected = sim.qc_quantize_op_dict["x"](torch.from_numpy(x)).relu().numpy()
        np.testing.assert_array_equal(sim.session.run(None, {"x": x})[0], expected)


def test_a_change_of_precision_makes_no_new_session():
    sim = calibrated()
    sim.session.run(None, {"x": samples()})
    session = sim.session._quantized
    for precision in ("int4", "int16", "fp32"):
        precisions = sim.precisions()
        precisions[2] = precision
        sim.apply_precisions(precisions)
        before = sim.session.run(None, {"x": samples()})[0]
        assert sim.session._quantized is session
        assert before.shape == (8, 5)


# ----- calibration -----


def test_calibration_observes_what_is_not_quantized():
    sim = calibrated()
    x, values = samples(), sim.qc_quantize_op_dict
    # The input's range is that of the data, widened to hold 0 on the grid.
    scale = (x.max() - x.min()) / 255
    assert math.isclose(values["x"].get_scale().item(), scale, rel_tol=1e-6)
    # The sum's is that of quantized weights and unquantized activations.
    weights = {name: values[name](_stored(sim, name)).detach() for name in ("w1", "w2")}
    r1 = torch.nn.functional.conv2d(
        torch.from_numpy(x), weights["w1"], _stored(sim, "b1"), padding=1
    ).relu()
    s = r1 + torch.nn.functional.conv2d(r1, weights["w2"], padding=1)
    assert math.isclose(values["s"].max.item(), float(s.max()), rel_tol=1e-5)


def _stored(sim: QuantizationSimModel, name: str) -> torch.Tensor:
    tensors = {t.name: t for t in sim.model.graph.initializer}
    return torch.from_numpy(onnx.numpy_helper.to_array(tensors[name]).copy())


def test_an_uncalibrated_quantizer_is_named():
    sim = QuantizationSimModel(small_network())
    assert sim.uncalibrated() == ["x", "w1", "r1", "w2", "c2", "s", "w3", "y"]
    with pytest.raises(RuntimeError, match="'w1' has no range yet"):
        sim.session.run(None, {"x": samples()})


def test_nan_names_the_tensor():
    sim = QuantizationSimModel(small_network())
    bad = samples()
    bad[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="quantizer 'x'"):
        sim.compute_encodings(lambda session: session.run(None, {"x": bad}))


# ----- the session -----


def test_the_session_looks_like_onnxruntimes():
    sim = calibrated()
    (value,) = sim.session.get_inputs()
    assert (value.name, value.shape, value.type) == (
        "x",
        ["batch", 3, 6, 6],
        "tensor(float)",
    )
    assert [output.name for output in sim.session.get_outputs()] == ["y"]
    assert sim.session.run(["y"], {"x": samples(3)})[0].shape == (3, 5)


def test_the_users_model_is_left_alone():
    model = small_network()
    before = model.SerializeToString()
    calibrated(model).session.run(None, {"x": samples()})
    assert model.SerializeToString() == before


def test_quantize_modules_are_the_engines():
    sim = QuantizationSimModel(small_network())
    kinds = {type(quantizer) for _, quantizer in sim.named_quantizers()}
    assert kinds == {QuantizeDequantize}
