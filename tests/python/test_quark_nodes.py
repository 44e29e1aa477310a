# SPDX-License-Identifier: BSD-3-Clause
"""Which tensors a configuration of AMD Quark quantizes, and powers of two."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

onnxruntime = pytest.importorskip("onnxruntime")

from quark_models import (  # noqa: E402
    DATA,
    distance,
    network,
    precisions,
    quantize,
    tutorial,
)

from aimetpp.quark import (  # noqa: E402
    Config,
    Int8Spec,
    Int16Spec,
    ModelQuantizer,
    PowerOfTwoMethod,
    QConfig,
    QLayerConfig,
    QuantizationConfig,
    QuantType,
)


def nearest(values: np.ndarray, scale: float, bits: int) -> float:
    top = 2 ** (bits - 1)
    return float(
        ((np.clip(np.round(values / scale), -top, top - 1) * scale - values) ** 2).sum()
    )


@pytest.mark.parametrize("bits", [8, 16])
def test_min_mse_takes_the_power_of_two_of_least_error(bits: int) -> None:
    kind = {8: QuantType.QInt8, 16: QuantType.QInt16}[bits]
    config = tutorial(
        calibrate_method=PowerOfTwoMethod.MinMSE, activation_type=kind, weight_type=kind
    )
    quantizer = quantize(config)
    values = {i.name: numpy_helper.to_array(i) for i in network().graph.initializer}
    values["x"] = DATA
    found = quantizer.sim.qc_quantize_op_dict
    for name in ("x", "conv1.weight", "conv2.weight", "gemm.weight"):
        wide = values[name].astype(np.float64)
        errors = {2.0**e: nearest(wide, 2.0**e, bits) for e in range(-20, 4)}
        assert found[name].get_scale().item() == min(errors, key=errors.__getitem__)
    covering = quantize(
        tutorial(
            calibrate_method=PowerOfTwoMethod.NonOverflow,
            activation_type=kind,
            weight_type=kind,
        )
    )
    assert distance(quantizer) < 2 * distance(covering)


def chain() -> onnx.ModelProto:
    """x -> gemm0 -> relu0 (r0) -> gemm1 -> relu1 (r1) -> gemm2 -> y"""
    rng = np.random.default_rng(3)
    nodes, weights, last = [], [], "x"
    for i in range(3):
        weights.append(
            numpy_helper.from_array(rng.normal(size=(4, 4)).astype("f"), f"w{i}")
        )
        out = f"h{i}" if i < 2 else "y"
        nodes.append(helper.make_node("Gemm", [last, f"w{i}"], [out], f"gemm{i}"))
        if i < 2:
            nodes.append(helper.make_node("Relu", [out], [f"r{i}"], f"relu{i}"))
        last = f"r{i}"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "chain",
        [value("x", TensorProto.FLOAT, [2, 4])],
        [value("y", TensorProto.FLOAT, [2, 4])],
        weights,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )


def quantized_tensors(config: Any) -> set[str]:
    """What QuantizeLinear nodes of the quantized chain read, and quantized weights."""
    wrapped = Config(config) if isinstance(config, QuantizationConfig) else config
    rng = np.random.default_rng(4)
    data = [{"x": rng.normal(size=(2, 4)).astype(np.float32)} for _ in range(4)]
    quantizer = ModelQuantizer(wrapped)
    model = quantizer.quantize_model(chain(), None, data)
    run = onnxruntime.InferenceSession(model.SerializeToString()).run
    np.testing.assert_allclose(
        run(None, data[0])[0], quantizer.sim.session.run(None, data[0])[0], atol=1e-3
    )
    assert not quantizer.sim.uncalibrated()
    return {name for name, now in precisions(quantizer).items() if now != "fp32"}


# Activations as onnxruntime's quantize_static quantizes them.
LEFT_OUT: list[tuple[dict[str, Any], str]] = [
    ({"nodes_to_exclude": ["gemm1"]}, "x r0 r1 y w0 w2"),
    ({"op_types_to_quantize": ["Gemm"]}, "x h0 r0 h1 r1 y w0 w1 w2"),
    ({"nodes_to_quantize": ["gemm1"]}, "r0 h1 w1"),
    ({"nodes_to_exclude": ["gemm0", "relu0"]}, "r0 r1 y w1 w2"),
]


@pytest.mark.parametrize(("options", "expected"), LEFT_OUT)
def test_a_tensor_is_quantized_where_a_quantized_node_touches_it(
    options: dict[str, Any], expected: str
) -> None:
    assert quantized_tensors(tutorial(**options)) == set(expected.split())


def test_left_out_by_the_later_names() -> None:
    wide = QLayerConfig(activation=Int16Spec(), weight=Int8Spec())
    config = QConfig(wide, exclude=["gemm1"])
    assert quantized_tensors(config) == set("x r0 r1 y w0 w2".split())
    config = QConfig(wide, layer_type_config={None: ["Relu"]})
    assert quantized_tensors(config) == set("x h0 r0 h1 r1 y w0 w1 w2".split())
    # What is said of a layer is said after what is said of its type.
    config = QConfig(
        wide,
        layer_type_config={None: ["Gemm", "Relu"]},
        specific_layer_config={QLayerConfig(weight=Int16Spec()): ["gemm1"]},
    )
    assert quantized_tensors(config) == set("r0 h1 w1".split())
