# SPDX-License-Identifier: BSD-3-Clause
"""Small ONNX models, and what runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def make_model(
    nodes: list[onnx.NodeProto],
    stored: dict[str, np.ndarray],
    inputs: dict[str, tuple[Any, ...]],
    outputs: list[str],
    opset: int = 20,
) -> onnx.ModelProto:
    """A valid model with float inputs of these shapes, and outputs of two axes."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in inputs.items()
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None])
            for name in outputs
        ],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10
    )
    onnx.checker.check_model(model)
    return model


def random_arrays(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def small_network() -> onnx.ModelProto:
    """conv1 + relu1, conv2, their sum, flattened, a MatMul with a bias behind it."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        node("Add", ["r1", "c2"], ["s"], "sum"),
        node("Flatten", ["s"], ["f"], "flat"),
        node("MatMul", ["f", "w3"], ["m"], "fc"),
        node("Add", ["m", "b3"], ["y"], "fc_bias"),
    ]
    stored = random_arrays(
        w1=(4, 3, 3, 3), b1=(4,), w2=(4, 4, 3, 3), w3=(4 * 6 * 6, 5), b3=(5,)
    )
    return make_model(nodes, stored, {"x": ("batch", 3, 6, 6)}, ["y"])


def samples(count: int = 8, seed: int = 1) -> np.ndarray:
    return random_arrays(seed, x=(count, 3, 6, 6))["x"]
