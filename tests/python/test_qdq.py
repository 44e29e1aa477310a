# SPDX-License-Identifier: BSD-3-Clause
"""Markers to QuantizeLinear and DequantizeLinear, on graphs made by hand."""

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_running import run

from aimetpp.export.encodings import Encoding
from aimetpp.export.param_integers import quantize_array
from aimetpp.export.qdq import MARKER_DOMAIN, MARKER_OP, insert_qdq


def marker(source, output, site, dtype="Float"):
    return helper.make_node(
        MARKER_OP,
        [source],
        [output],
        output,
        domain=MARKER_DOMAIN,
        id=site,
        dtype=dtype,
    )


def graph_of(nodes, inputs, outputs, initializers=(), opset=21):
    def info(name, elem_type):
        return helper.make_tensor_value_info(name, elem_type, [None])

    graph = helper.make_graph(
        nodes,
        "g",
        [info(*pair) for pair in inputs],
        [info(*pair) for pair in outputs],
        list(initializers),
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MARKER_DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


# Halves round to even; 2.5 steps and beyond, both ends clipped.
VALUES = np.array([-9, -1, -0.75, -0.25, 0, 0.25, 0.75, 1.25, 3, 9], np.float32)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        # q in [0, 7], offset -2: from -1 to 2.5 in steps of 0.5.
        (
            Encoding("int3", False, (0.5,), (-2,), 0, 7),
            [-1, -1, -1, 0, 0, 0, 1, 1, 2.5, 2.5],
        ),
        # Strict symmetric: [-7, 7].
        (
            Encoding("int4", True, (0.5,), (0,), -7, 7),
            [-3.5, -1, -1, 0, 0, 0, 1, 1, 3, 3.5],
        ),
        (
            Encoding("int4", True, (0.5,), (0,), -8, 7),
            [-4, -1, -1, 0, 0, 0, 1, 1, 3, 3.5],
        ),
    ],
)
def test_nodes_compute_the_grid(encoding, expected):
    model = graph_of([marker("x", "y", 3)], [("x", 1)], [("y", 1)])
    result = insert_qdq(model, {3: encoding}, {3: "site"}, [])
    onnx.checker.check_model(model)
    assert run(model, {"x": VALUES})[0].tolist() == expected
    assert result.activations == {"y": encoding}
    fills_type = (encoding.qmin, encoding.qmax) == (-8, 7)
    assert ("Min" in {node.op_type for node in model.graph.node}) is not fills_type
    assert run(model, {"x": VALUES}, optimized=True)[0].tolist() == expected


U4 = Encoding("int4", False, (0.5,), (-2,), 0, 15)
S4 = Encoding("int4", True, (0.5,), (0,), -8, 7)
S8 = Encoding("int8", True, (0.0625,), (0,), -128, 127)
U8 = Encoding("int8", False, (0.03125,), (-64,), 0, 255)


@pytest.mark.parametrize(
    ("ops", "before", "after"),
    [
        # A ReLU is needed where the grid goes below zero.
        (["Relu"], U8, S4),
        (["Relu", "Transpose"], U8, S4),
        (["Relu"], U8, U4),
        # A Clip, such as ReLU6, in front of 4 bits is no model that it takes.
        (["Clip"], U8, U4),
        (["Clip", "Transpose"], U8, S4),
        # No 4-bit MaxPool kernel, in whichever direction the nodes are moved.
        (["MaxPool"], U4, U8),
        (["MaxPool"], U8, U4),
        (["MaxPool"], S4, S4),
        (["Transpose", "MaxPool"], U4, S4),
        # No 4-bit QLinearConv.
        (["Conv"], U4, U4),
        (["Conv"], S4, S4),
        (["Transpose", "Conv"], U4, U4),
        # Signed bytes moved in opset 21.
        (["MaxPool", "Sigmoid"], S8, U8),
        (["Transpose", "Sigmoid"], S8, U8),
    ],
)
def test_onnxruntime_optimizes_it_without_harm(ops, before, after):
    rng = np.random.default_rng(0)
    weight = np.round(rng.normal(size=(3, 3, 3, 3)), 1).astype(np.float32)
    initializers = [onnx.numpy_helper.from_array(weight, "w")]
    for name, end in (("low", 0), ("high", 6)):
        initializers.append(helper.make_tensor(name, 1, [], [end]))
    byte = Encoding("int8", True, (0.125,), (0,), -128, 127)
    nodes, last = [marker("x", "a0", 0), marker("w", "v", 1)], "a0"
    options = {
        "MaxPool": {"kernel_shape": [2, 2]},
        "Transpose": {"perm": [0, 1, 3, 2]},
    }
    for index, op in enumerate(ops, 1):
        others = {"Conv": ["v"], "Clip": ["low", "high"]}
        inputs = [last, *others.get(op, ())]
        last = f"a{index}"
        nodes.append(helper.make_node(op, inputs, [last], **options.get(op, {})))
    nodes.append(marker(last, "y", 2))
    shapes = [helper.make_tensor_value_info("x", 1, [1, 3, 6, 6])]
    outputs = [helper.make_tensor_value_info("y", 1, [None] * 4)]
    graph = helper.make_graph(nodes, "g", shapes, outputs, initializers)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid(MARKER_DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    names = {0: "x", 1: "w", 2: "y"}
    insert_qdq(model, {0: before, 1: byte, 2: after}, names, [1])
    onnx.checker.check_model(model, full_check=True)
    feeds = {"x": rng.normal(size=(1, 3, 6, 6), scale=3).astype(np.float32)}
    plain, optimized = run(model, feeds)[0], run(model, feeds, optimized=True)[0]
    assert np.abs(plain - optimized).max() <= after.scale[0] * 1.001
    assert np.unique(plain).size > 3


def softmax_model(scores, probabilities, classes):
    nodes = [
        marker("x", "a", 0),
        helper.make_node("Softmax", ["a"], ["b"], axis=-1),
        marker("b", "y", 1),
    ]
    model = graph_of(nodes, [("x", 1)], [("y", 1)])
    for value in (*model.graph.input, *model.graph.output):
        value.CopyFrom(helper.make_tensor_value_info(value.name, 1, [3, classes]))
    shape = helper.make_tensor_value_info("a", 1, [3, classes])
    model.graph.value_info.append(shape)
    insert_qdq(model, {0: scores, 1: probabilities}, {0: "x", 1: "b"}, [])
    return model


@pytest.mark.parametrize(
    ("span", "classes"), [(0.05, 196), (0.5, 16), (1.5, 2), (8.0, 25)]
)
@pytest.mark.parametrize("signed", [False, True])
def test_softmax_of_probabilities_that_hardly_differ(span, classes, signed):
    """onnxruntime's QLinearSoftmax gives zeros for the largest of each row."""
    low, high = (-128, 127) if signed else (0, 255)
    scores = Encoding("int8", False, (span / 255,), (-low,), low, high)
    step = 1 / classes / 255 * 1.5
    probabilities = Encoding("int8", False, (step,), (-low,), low, high)
    model = softmax_model(scores, probabilities, classes)
    x = np.zeros((3, classes), np.float32)
    x[1], x[2, 0] = span, span
    plain, optimized = run(model, {"x": x})[0], run(model, {"x": x}, optimized=True)[0]
    assert np.abs(plain - optimized).max() <= 1.001 * step
    assert plain[:2].min() > 0


@pytest.mark.parametrize("signed", [False, True])
def test_softmax_is_guarded_only_where_it_would_overflow(signed):
    """The largest step of n probabilities that overflows is 1 / (n e^5)."""
    low, high = (-128, 127) if signed else (0, 255)
    scores = Encoding("int8", False, (0.5 / 255,), (-low,), low, high)
    for factor, guarded in ((0.98, True), (1.02, False)):
        step = factor / (25 * math.exp(5))
        probabilities = Encoding("int8", False, (step,), (-low,), low, high)
        model = softmax_model(scores, probabilities, 25)
        assert ("Min" in [node.op_type for node in model.graph.node]) == guarded
        x = np.random.default_rng(0).uniform(0, 0.5, (3, 25)).astype(np.float32)
        plain = run(model, {"x": x})[0]
        optimized = run(model, {"x": x}, optimized=True)[0]
        assert np.abs(plain - optimized).max() <= 1.001 * step


def test_a_guard_of_a_grid_per_channel_clips_no_channel():
    encoding = Encoding("int4", True, (0.5, 8.0), (0, 0), -8, 7, channel_axis=1)
    pool = helper.make_node("MaxPool", ["a"], ["y"], kernel_shape=[1, 1])
    model = graph_of([marker("x", "a", 0), pool], [("x", 1)], [("y", 1)])
    for value in (*model.graph.input, *model.graph.output):
        value.CopyFrom(helper.make_tensor_value_info(value.name, 1, [1, 2, 1, 2]))
    insert_qdq(model, {0: encoding}, {0: "x"}, [])
    x = np.array([[[[1.2, -9.0]], [[50.0, -70.0]]]], np.float32)
    expected = [1.0, -4.0, 48.0, -64.0]
    assert run(model, {"x": x})[0].ravel().tolist() == expected
    assert run(model, {"x": x}, optimized=True)[0].ravel().tolist() == expected


def test_quantize_array_per_channel():
    encoding = Encoding("int4", True, (0.5, 2.0), (0, 0), -8, 7, channel_axis=1)
    values = np.array([[0.25, 1.0], [0.75, 3.0], [-9.0, 99.0]], np.float32)
    assert quantize_array(values, encoding).tolist() == [[0, 0], [2, 2], [-8, 7]]


def test_half_and_double_tensors_are_computed_in_float():
    encoding = Encoding("int8", False, (0.5,), (-2,), 0, 255)
    for name, elem_type, dtype in (
        ("Half", TensorProto.FLOAT16, np.float16),
        ("Double", TensorProto.DOUBLE, np.float64),
    ):
        nodes = [marker("x", "y", 0, name)]
        model = graph_of(nodes, [("x", elem_type)], [("y", elem_type)])
        insert_qdq(model, {0: encoding}, {0: "site"}, [])
        (got,) = run(model, {"x": np.array([-9, 0.25, 0.75, 3], dtype)})
        assert got.dtype == dtype
        assert got.tolist() == [-1, 0, 1, 3]


def test_fp16_parameter_is_stored_in_half_and_overflows_as_a_cast():
    weight = onnx.numpy_helper.from_array(np.array([1 / 3, 1e6], np.float32), "w")
    nodes = [marker("w", "v", 0), helper.make_node("Add", ["x", "v"], ["y"])]
    model = graph_of(nodes, [("x", 1)], [("y", 1)], [weight])
    result = insert_qdq(model, {0: Encoding("fp16")}, {0: "w"}, [0])
    (stored,) = model.graph.initializer
    assert stored.data_type == TensorProto.FLOAT16
    (got,) = run(model, {"x": np.zeros(2, np.float32)})
    assert got.tolist() == [float(np.float16(1 / 3)), float("inf")]
    assert list(result.params) == ["w"]


def test_parameter_behind_identity_and_computed_parameter():
    weight = onnx.numpy_helper.from_array(np.array([0.3, -0.3], np.float32), "w")
    nodes = [
        helper.make_node("Identity", ["w"], ["w2"]),
        marker("w2", "a", 0),
        helper.make_node("Neg", ["w"], ["n"]),
        marker("n", "b", 1),
        helper.make_node("Sub", ["a", "b"], ["y"]),
    ]
    model = graph_of(nodes, [("x", 1)], [("y", 1)], [weight])
    encoding = Encoding("int8", True, (0.25,), (0,), -128, 127)
    names = {0: "twin.weight", 1: "computed.weight"}
    result = insert_qdq(model, {0: encoding, 1: encoding}, names, [0, 1])
    (got,) = run(model, {"x": np.zeros(1, np.float32)})
    assert got.tolist() == [0.5, -0.5]
    assert list(result.params) == ["w2", "computed.weight"]
    assert "Identity" not in [node.op_type for node in model.graph.node]


def test_tensor_read_with_two_encodings_has_both():
    coarse = Encoding("int4", True, (1.0,), (0,), -8, 7)
    fine = Encoding("int8", True, (0.25,), (0,), -128, 127)
    nodes = [
        marker("x", "a", 0),
        marker("x", "b", 1),
        helper.make_node("Sub", ["a", "b"], ["y"]),
    ]
    model = graph_of(nodes, [("x", 1)], [("y", 1)])
    result = insert_qdq(model, {0: coarse, 1: fine}, {0: "r0", 1: "r1"}, [])
    assert result.activations == {"x": coarse, "b": fine}
    assert run(model, {"x": np.array([0.75], np.float32)})[0].tolist() == [0.25]


def test_pad_keeps_the_grid_only_with_zeros():
    encoding = Encoding("int8", True, (0.25,), (0,), -128, 127)
    pads = onnx.numpy_helper.from_array(np.array([0, 1], np.int64), "pads")
    one = onnx.numpy_helper.from_array(np.array(1, np.float32), "one")
    nodes = [
        marker("x", "a", 0),
        helper.make_node("Pad", ["a", "pads"], ["y"]),
        helper.make_node("Pad", ["a", "pads", "one"], ["z"]),
    ]
    model = graph_of(nodes, [("x", 1)], [("y", 1), ("z", 1)], [pads, one])
    result = insert_qdq(model, {0: encoding}, {0: "x"}, [])
    assert set(result.activations) == {"x", "y"}


GRID = Encoding("int8", True, (0.25,), (0,), -128, 127)
OTHER = Encoding("int8", True, (0.5,), (0,), -128, 127)


@pytest.mark.parametrize(
    ("second", "mode", "moved"),
    [
        (GRID, "nearest", {"joined", "lower", "resized"}),
        (OTHER, "nearest", set()),  # parts of two grids are on neither
        (GRID, "linear", {"joined", "lower"}),
    ],
)
def test_parts_joined_and_nearest_elements_keep_the_grid(second, mode, moved):
    sizes = onnx.numpy_helper.from_array(np.array([2, 6], np.int64), "sizes")
    nodes = [
        marker("x", "a", 0),
        marker("y", "b", 1),
        helper.make_node("Concat", ["a", "b"], ["joined"], axis=0),
        helper.make_node("Trilu", ["joined"], ["lower"], upper=0),
        helper.make_node("Resize", ["lower", "", "", "sizes"], ["resized"], mode=mode),
    ]
    model = graph_of(nodes, [("x", 1), ("y", 1)], [("resized", 1)], [sizes])
    result = insert_qdq(model, {0: GRID, 1: second}, {0: "x", 1: "y"}, [])
    assert set(result.activations) - {"x", "y"} == moved


def test_marker_without_encoding():
    model = graph_of([marker("x", "y", 3)], [("x", 1)], [("y", 1)])
    with pytest.raises(ValueError, match="site 3 has no encoding"):
        insert_qdq(model, {}, {3: "site"}, [])
