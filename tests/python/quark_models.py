# SPDX-License-Identifier: BSD-3-Clause
"""A small ONNX model, and what configurations of AMD Quark make of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

onnxruntime = pytest.importorskip("onnxruntime")

from aimetpp.quark import (  # noqa: E402
    CalibrationDataReader,
    CalibrationMethod,
    Config,
    ModelQuantizer,
    QuantizationConfig,
    QuantType,
    VitisQuantFormat,
    VitisQuantType,
)

DATA = np.random.default_rng(0).normal(size=(6, 1, 2, 6, 6)).astype(np.float32)


def network() -> onnx.ModelProto:
    """x -> conv1 -> relu -> conv2 -> flatten -> gemm -> y; and relu -> pool -> z."""
    rng = np.random.default_rng(1)
    weights = {
        "conv1.weight": rng.normal(size=(3, 2, 3, 3)) / 3,
        "conv2.weight": rng.normal(size=(2, 3, 3, 3)) / 4,
        "gemm.weight": rng.normal(size=(8, 4)) / 2,
        "conv1.bias": rng.normal(size=3) / 10,
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv1.weight", "conv1.bias"], ["a"], "conv1"),
        helper.make_node("Relu", ["a"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "conv2.weight"], ["b"], "conv2"),
        helper.make_node("Flatten", ["b"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "gemm.weight"], ["y"], "gemm"),
        helper.make_node("GlobalAveragePool", ["r"], ["z"], "pool"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "network",
        [value("x", TensorProto.FLOAT, [1, 2, 6, 6])],
        [
            value("y", TensorProto.FLOAT, [1, 4]),
            value("z", TensorProto.FLOAT, [1, 3, 1, 1]),
        ],
        [
            numpy_helper.from_array(array.astype(np.float32), name)
            for name, array in weights.items()
        ],
    )
    opset = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


class Reader(CalibrationDataReader):
    """Feeds one after the other, as onnxruntime's readers do."""

    def __init__(self) -> None:
        self._feeds: Iterator[Any] = iter([{"x": x} for x in DATA])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def tutorial(**options: Any) -> QuantizationConfig:
    settings: dict[str, Any] = {
        "calibrate_method": CalibrationMethod.MinMax,
        "quant_format": VitisQuantFormat.QDQ,
        "activation_type": VitisQuantType.QInt16,
        "weight_type": QuantType.QInt8,
        **options,
    }
    return QuantizationConfig(**settings)


def auto(**options: Any) -> QuantizationConfig:
    narrow = {
        "ActTargetQuantType": QuantType.QInt4,
        "WeightTargetQuantType": QuantType.QInt4,
    }
    return tutorial(
        include_auto_mp=True, extra_options={"AutoMixprecision": {**narrow, **options}}
    )


def quantize(config: Any) -> ModelQuantizer:
    wrapped = Config(config) if isinstance(config, QuantizationConfig) else config
    quantizer = ModelQuantizer(wrapped)
    quantizer.quantize_model(network(), None, Reader())
    return quantizer


def precisions(quantizer: ModelQuantizer) -> dict[str, str]:
    found = quantizer.sim.precisions()
    spots = (*quantizer.sim.spots.activations, *quantizer.sim.spots.params)
    return {spot.tensor: found[spot.quantizer] for spot in spots}


def outputs(quantizer: ModelQuantizer) -> list[list[np.ndarray]]:
    return [quantizer.sim.session.run(None, {"x": x}) for x in DATA]


def float_outputs() -> list[list[np.ndarray]]:
    session = onnxruntime.InferenceSession(network().SerializeToString())
    return [session.run(None, {"x": x}) for x in DATA]


def distance(quantizer: ModelQuantizer, index: int | None = None) -> float:
    pairs = zip(float_outputs(), outputs(quantizer), strict=True)
    lengths = [
        [np.linalg.norm(a.astype(float) - b) for a, b in zip(old, new, strict=True)]
        for old, new in pairs
    ]
    return float(np.mean(lengths if index is None else np.array(lengths)[:, index]))
