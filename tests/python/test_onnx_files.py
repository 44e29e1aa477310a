# SPDX-License-Identifier: BSD-3-Clause
"""ONNX models as tools and people write them: the simulation, and the file that it
exports, compute what they should; what cannot be read is said.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import make_model, random_arrays, samples, small_network
from onnx_running import run

from aimetpp.onnx import QuantizationSimModel
from aimetpp.onnx.export import build_qdq_model

Feeds = dict[str, np.ndarray]
Case = tuple[onnx.ModelProto, Feeds]
node = helper.make_node


def value(name: str, shape: Any = None, elem_type: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, elem_type, shape)


def image(seed: int = 3, **shape: Any) -> Feeds:
    return random_arrays(seed, **(shape or {"x": (1, 3, 8, 8)}))


def one_weight_of_three_layers() -> Case:
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "w"], ["b"], pads=[1] * 4),
        node("Conv", ["b", "w", "bias"], ["c"]),
        node("GlobalAveragePool", ["c"], ["p"]),
        node("Flatten", ["p"], ["y"]),
    ]
    stored = random_arrays(w=(3, 3, 3, 3), bias=(3,))
    return make_model(nodes, stored, {"x": (1, 3, 8, 8)}, ["y"], 17), image()


def weights_behind_nodes() -> Case:
    """A Transpose, a Cast and an Identity of what is stored, and a Constant node."""
    arrays = random_arrays(first=(8, 6), second=(8, 4), fourth=(4, 3))
    nodes = [
        node("Transpose", ["first"], ["first.t"], perm=[1, 0]),
        node("MatMul", ["x", "first.t"], ["a"]),
        node("Cast", ["second"], ["second.f"], to=TensorProto.FLOAT),
        node("Identity", ["second.f"], ["second.i"]),
        node("MatMul", ["a", "second.i"], ["b"]),
        node("Constant", [], ["c"], value=numpy_helper.from_array(arrays["fourth"])),
        node("MatMul", ["b", "c"], ["y"]),
    ]
    stored = {"first": arrays["first"], "second": arrays["second"].astype(np.float16)}
    return make_model(nodes, stored, {"x": ("N", 6)}, ["y"], 13), image(x=(5, 6))


def branches() -> Case:
    """What an If and a Loop read from around them is quantized, not what they hold."""
    then = helper.make_graph(
        [node("MatMul", ["r", "w2"], ["t"])], "then", [], [value("t")]
    )
    other = helper.make_graph(
        [node("Identity", ["r"], ["o"])], "else", [], [value("o")]
    )
    body = helper.make_graph(
        [node("MatMul", ["v", "w2"], ["v2"]), node("Identity", ["go"], ["go2"])],
        "body",
        [value("i", [], 7), value("go", [], 9), value("v")],
        [value("go2", [], 9), value("v2")],
    )
    nodes = [
        node("MatMul", ["x", "w"], ["m"]),
        node("Relu", ["m"], ["r"]),
        node("ReduceSum", ["r"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["f"], then_branch=then, else_branch=other),
        node("Loop", ["trips", "", "f"], ["l"], body=body),
        node("MatMul", ["l", "w"], ["y"]),
    ]
    stored = {
        **random_arrays(w=(6, 6), w2=(6, 6)),
        "zero": np.float32(0),
        "trips": np.int64(2),
    }
    return make_model(nodes, stored, {"x": ("N", 6)}, ["y"], 17), image(x=(4, 6))


def nodes_without_names_of_their_own() -> Case:
    nodes = [
        node("Relu", ["x"], ["a"], "same"),
        node("Neg", ["a"], ["b"], "same"),
        node("Relu", ["b"], ["c"]),
        node("Add", ["c", "a"], ["y"], "Relu_2"),
    ]
    return make_model(nodes, {}, {"x": ("N", 4)}, ["y"]), image(x=(3, 4))


def outputs_that_others_read() -> Case:
    nodes = [
        node("Gemm", ["x", "w"], ["y"], alpha=0.5),
        node("Relu", ["y"], ["z"]),
        node("Gemm", ["z", "w2", "b"], ["u"], transB=1, beta=2.0),
        node("Split", ["u"], ["p", "q"], axis=1, num_outputs=2),
        node("Concat", ["q", "p"], ["v"], axis=1),
    ]
    stored = random_arrays(w=(6, 5), w2=(4, 5), b=(4,))
    outputs = ["y", "z", "u", "v"]
    return make_model(nodes, stored, {"x": ("N", 6)}, outputs, 18), image(x=(4, 6))


def transposed_and_grouped_convolutions() -> Case:
    nodes = [
        node("ConvTranspose", ["x", "w", "b"], ["a"], strides=[2, 2]),
        node("HardSwish", ["a"], ["h"]),
        node("ConvTranspose", ["h", "w2"], ["c"], group=2),
        node("Conv", ["c", "w3"], ["d"], group=6),
        node("GlobalMaxPool", ["d"], ["p"]),
        node("Flatten", ["p"], ["y"]),
    ]
    stored = random_arrays(w=(3, 4, 2, 2), b=(4,), w2=(4, 3, 3, 3), w3=(6, 1, 3, 3))
    return make_model(nodes, stored, {"x": (1, 3, 6, 6)}, ["y"]), image(x=(1, 3, 6, 6))


def recurrence() -> Case:
    nodes = [
        node("LSTM", ["x", "W", "R", "B"], ["Y", "", "Yc"], hidden_size=5),
        node("Squeeze", ["Yc", "axes"], ["c"]),
        node("MatMul", ["c", "w"], ["y"]),
    ]
    stored = {
        **random_arrays(W=(1, 20, 4), R=(1, 20, 5), B=(1, 40), w=(5, 3)),
        "axes": np.array([0], np.int64),
    }
    return make_model(nodes, stored, {"x": (7, "N", 4)}, ["y"], 21), image(x=(7, 2, 4))


def statistics_and_limits() -> Case:
    nodes = [
        node("BatchNormalization", ["x", "s", "b", "mean", "var"], ["n"]),
        node("Clip", ["n", "", "six"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w"], ["y"]),
    ]
    stored = random_arrays(s=(3,), b=(3,), mean=(3,), w=(48, 4))
    stored |= {"var": np.float32([1e-3, 1, 40]), "six": np.float32(6)}
    return make_model(nodes, stored, {"x": ("N", 3, 8, 8)}, ["y"], 22), image()


def embeddings() -> Case:
    nodes = [
        node("Gather", ["table", "ids"], ["e"]),
        node("Add", ["e", "positions"], ["a"]),
        node("LayerNormalization", ["a", "g", "b"], ["n"]),
        node("Transpose", ["table"], ["table.t"], perm=[1, 0]),
        node("MatMul", ["n", "table.t"], ["logits"]),
        node("ReduceMean", ["logits", "axes"], ["y"], keepdims=0),
    ]
    stored = {
        **random_arrays(table=(11, 8), positions=(5, 8), g=(8,), b=(8,)),
        "axes": np.array([1], np.int64),
    }
    model = make_model(nodes, stored, {"ids": ("N", 5)}, ["y"], 18)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    return model, {"ids": np.arange(10).reshape(2, 5)}


def nothing_to_quantize() -> Case:
    nodes = [node("Reshape", ["x", "shape"], ["y"])]
    stored = {"shape": np.array([3, 2], np.int64)}
    return make_model(nodes, stored, {"x": (2, 3)}, ["y"]), image(x=(2, 3))


CASES: list[Callable[[], Case]] = [
    one_weight_of_three_layers,
    weights_behind_nodes,
    branches,
    nodes_without_names_of_their_own,
    outputs_that_others_read,
    transposed_and_grouped_convolutions,
    recurrence,
    statistics_and_limits,
    embeddings,
    nothing_to_quantize,
]


def calibrated(model: Any, feeds: Feeds, **options: Any) -> QuantizationSimModel:
    sim = QuantizationSimModel(model, feeds, **options)
    sim.compute_encodings(lambda session: session.run(None, feeds))
    return sim


def tensors_of(model: onnx.ModelProto) -> set[str]:
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    ends = {x.name for x in (*graph.input, *graph.output)}
    return stored | ends | {name for n in graph.node for name in n.output if name}


@pytest.mark.parametrize("bits", [(8, 8), (16, 4)], ids=["A8W8", "A16W4"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_simulated_and_exported(
    case: Callable[[], Case], bits: tuple[int, int], tmp_path: Path
) -> None:
    """A16W4 needs opset 21."""
    model, feeds = case()
    activation, param = bits
    sim = calibrated(
        model, feeds, default_activation_bw=activation, default_param_bw=param
    )
    expected = run(sim.model, feeds, optimized=True)  # with names for nodes
    with sim.quantizers_off():
        for one, other in zip(expected, sim.session.run(None, feeds), strict=True):
            np.testing.assert_array_equal(one, other)
    simulated = sim.session.run(None, feeds)
    assert sim.uncalibrated() == []
    grouped = {site for group in sim.quantizer_groups() for site in group.sites}
    assert grouped == {s.id for s in sim.sites() if s.quantizer is not None}

    sim.export(tmp_path, "model")
    exported = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(exported, full_check=True)
    for one, other in zip(simulated, run(exported, feeds), strict=True):
        np.testing.assert_array_equal(one, other)
    # Every tensor has its name, but for steps towards a constant that is stored now.
    names = tensors_of(exported)
    steps = {"first", "second", "second.f"}
    assert tensors_of(model) - names <= (steps & tensors_of(model))
    content = json.loads((tmp_path / "model.encodings").read_text())
    for section in ("activation_encodings", "param_encodings"):
        assert {entry["name"] for entry in content[section]} <= names
    quantized = {s.name for s in sim.sites() if s.quantizer is not None}
    unread = {"Y"}  # an output of the recurrence
    assert quantized - unread <= {
        entry["name"]
        for section in ("activation_encodings", "param_encodings")
        for entry in content[section]
    }


def test_integer_biases_keep_their_names() -> None:
    model, feeds = one_weight_of_three_layers()
    sim = calibrated(model, feeds)
    made = {n.output[0]: n for n in build_qdq_model(sim).model.graph.node}
    for name, stored in (("w", "w_quantized"), ("bias", "bias_quantized")):
        assert made[name].op_type == "DequantizeLinear"
        assert made[name].input[0] == stored


def test_running_statistics_are_never_quantized() -> None:
    sim = QuantizationSimModel(*statistics_and_limits())
    params = {site.name for site in sim.sites() if site.kind == "param"}
    assert params == {"s", "b", "w"}


def test_half_precision() -> None:
    """The model stays in half precision, quantizers compute in single precision."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("Flatten", ["r"], ["f"]),
        node("Mul", ["f", "two"], ["m"]),
        node("Gemm", ["m", "v"], ["y"]),
    ]
    arrays = random_arrays(w=(4, 3, 3, 3), b=(4,), v=(144, 5)) | {"two": np.float32(2)}
    stored = {name: array.astype(np.float16) for name, array in arrays.items()}
    model = make_model(nodes, stored, {"x": (1, 3, 8, 8)}, ["y"], 17)
    for end in (model.graph.input[0], model.graph.output[0]):
        end.type.tensor_type.elem_type = TensorProto.FLOAT16
    feeds = {"x": image()["x"].astype(np.float16)}
    sim = calibrated(model, feeds)
    for bits in ("int8", "int16"):
        sim.apply_precisions([bits] * len(sim.precisions()))
        exported = build_qdq_model(sim).model
        onnx.checker.check_model(exported, full_check=True)
        (want,), (got,) = sim.session.run(None, feeds), run(exported, feeds)
        assert got.dtype == np.float16
        # A step of the output's grid, or of half precision.
        step = max(
            sim.qc_quantize_op_dict["y"].get_scale().item(),
            float(np.spacing(np.abs(want).max())),
        )
        assert np.abs(want.astype(float) - got.astype(float)).max() <= 2.01 * step


def test_sparse_initializers_are_read() -> None:
    for indices in ([[0, 0], [2, 1], [5, 2]], [0, 7, 17]):
        graph = helper.make_graph(
            [node("MatMul", ["x", "w"], ["y"])],
            "graph",
            [value("x", [2, 6])],
            [value("y", [2, 3])],
        )
        values = numpy_helper.from_array(np.float32([1, 2, 3]), "w")
        places = numpy_helper.from_array(np.array(indices, np.int64), "places")
        graph.sparse_initializer.append(
            helper.make_sparse_tensor(values, places, [6, 3])
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        )
        x = image(x=(2, 6))
        sim = calibrated(model, x, default_param_bw=16, default_activation_bw=16)
        expected = np.stack([x["x"][:, 0], 2 * x["x"][:, 2], 3 * x["x"][:, 5]], axis=1)
        (got,) = sim.session.run(None, x)
        assert np.abs(got - expected).max() < 1e-3


def test_outputs_without_shapes_are_exported(tmp_path: Path) -> None:
    """onnx's checker wants shapes of them, onnxruntime does not."""
    model = small_network()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model)
    sim = calibrated(model, {"x": samples()})
    sim.export(tmp_path, "model")
    (got,) = run(str(tmp_path / "model.onnx"), {"x": samples()})
    np.testing.assert_array_equal(got, sim.session.run(None, {"x": samples()})[0])


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(FileNotFoundError, match="model.onnx"):
        QuantizationSimModel(path)
    for content in (b"no model", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="model.onnx .*ONNX model"):
            QuantizationSimModel(path)
    onnx.save_model(
        small_network(),
        str(path),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ValueError, match=r"cannot be read as an ONNX model.*weights"):
        QuantizationSimModel(path)
    with pytest.raises(ValueError, match="this onnxruntime has no 'NoSuchProvider'"):
        QuantizationSimModel(small_network(), providers=["NoSuchProvider"])


def test_wrong_feeds_name_the_inputs() -> None:
    sim = calibrated(small_network(), {"x": samples()})
    for feeds in ({}, {"z": samples()}, {"x": samples(), "z": samples()}):
        for run_with in (
            sim.session.run,
            lambda _, f: sim.compute_encodings(lambda session: session.run(None, f)),
        ):
            with pytest.raises(ValueError, match="the model's inputs are x; got"):
                run_with(None, feeds)
    with pytest.raises(ValueError, match="has no output 'r1'; it has y"):
        sim.session.run(["r1"], {"x": samples()})
