# SPDX-License-Identifier: BSD-3-Clause
"""Simulations of ONNX models with biases as exported files have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_models import make_model, random_arrays, samples, small_network
from onnx_running import run

from aimetpp.onnx import QuantizationSimModel
from aimetpp.onnx.export import build_qdq_model

FEEDS = {"x": samples()}


def layers() -> onnx.ModelProto:
    """Biases behind what moves data, of a factor, of groups, of MatMul and of Gemm."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv1"),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("MaxPool", ["r1"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("ConvTranspose", ["p", "w2", "b2"], ["c2"], "up", group=2),
        node("Flatten", ["c2"], ["f"], "flat"),
        node("MatMul", ["f", "w3"], ["m"], "fc"),
        node("Add", ["b3", "m"], ["a"], "fc_bias"),
        node("Gemm", ["a", "w4", "b4"], ["g"], "scaled", alpha=0.5),
        node("Gemm", ["g", "w5", "b4"], ["y"], "last", transB=1),
    ]
    stored = random_arrays(
        w1=(4, 3, 3, 3), b1=(4,), w2=(4, 3, 2, 2), b2=(6,), w3=(54, 5), b3=(5,)
    )
    stored |= random_arrays(7, w4=(5, 4), b4=(4,), w5=(4, 4))
    return make_model(nodes, stored, {"x": ("batch", 3, 6, 6)}, ["y"])


def simulate(model: onnx.ModelProto, **options: Any) -> QuantizationSimModel:
    sim = QuantizationSimModel(model, FEEDS, **options)
    sim.compute_encodings(lambda session: session.run(None, FEEDS))
    return sim


@pytest.mark.parametrize("config", ["default", "default_per_tensor"])
@pytest.mark.parametrize("make", [layers, small_network])
@pytest.mark.parametrize("bits", ["int4", "int8"])
def test_the_exported_file_computes_the_same(make: Any, bits: str, config: str) -> None:
    sim = simulate(make(), config_file=config, int32_bias=True)
    sim.apply_precisions([bits] * len(sim.precisions()))
    (rounded,) = sim.session.run(None, FEEDS)
    (got,) = run(build_qdq_model(sim).model, FEEDS)
    np.testing.assert_array_equal(got, rounded)
    sim.int32_bias = False
    (plain,) = sim.session.run(None, FEEDS)
    (got,) = run(build_qdq_model(sim, export_int32_bias=False).model, FEEDS)
    np.testing.assert_array_equal(got, plain)
    assert bits == "int8" or np.abs(plain - rounded).max() > 0


def test_biases_follow_the_scales_and_stay_float_where_there_is_no_grid() -> None:
    sim = simulate(layers(), int32_bias=True)
    spots = {bias.tensor: bias for bias in sim.session.biases}
    assert set(spots) == {"b1", "b2", "b3", "b4"}  # b4 of the unscaled Gemm
    assert len(sim.session.biases) == 4
    scales = [sim.qc_quantize_op_dict[n].get_scale().detach() for n in ("x", "w1")]
    step = (scales[0] * scales[1].flatten()).numpy()
    steps = spots["b1"].rounded() / step
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-2)
    assert (spots["b1"].rounded() != spots["b1"].values.numpy()).any()
    assert "rounded, int32" in str(sim.explain("b1"))

    names = [entry.label for entry in sim._bank.entries]
    found = sim.precisions()
    found[names.index("x")] = "fp16"
    sim.apply_precisions(found)
    np.testing.assert_array_equal(spots["b1"].rounded(), spots["b1"].values.numpy())
    with sim.quantizers_off():
        (got,) = sim.session.run(None, FEEDS)
    np.testing.assert_array_equal(got, run(sim.model, FEEDS, optimized=True)[0])


def test_the_option_is_checked_and_part_of_the_fingerprint() -> None:
    sim = simulate(small_network())
    before = sim.fingerprint()
    assert sim.int32_bias is True
    with pytest.raises(TypeError, match="int32_bias must be True or False"):
        sim.int32_bias = 1  # type: ignore[assignment]
    sim.int32_bias = False
    assert sim.int32_bias is False and sim.fingerprint() != before
    sim.int32_bias = True
    assert sim.fingerprint() == before
