# SPDX-License-Identifier: BSD-3-Clause
"""ONNX with QDQ nodes: what stands in the file, and that it computes the same."""

import os

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from torch import nn

from aimetpp.export import export, files
from aimetpp.export.encodings import Encoding
from aimetpp.export.onnx import build_qdq_model, export_onnx
from aimetpp.export.qdq import MARKER_DOMAIN, MARKER_OP, insert_qdq, quantize_array
from aimetpp.quantsim import QuantizationSimModel

ort = pytest.importorskip("onnxruntime")


class Net(nn.Module):
    """Everything that an exporter may stumble over, in 8x8."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU()
        self.tokens = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(y + self.depthwise(y))
        y = F.max_pool2d(y, 2)
        y = torch.cat([self.left(y), self.right(y)], dim=1)
        y = y.flatten(2).transpose(1, 2)
        y = self.tokens(y).mean(1)
        return self.fc(y), y


@pytest.fixture
def images():
    return torch.randn(16, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def simulate(images, precisions=None, config=None):
    torch.manual_seed(0)
    net = Net().eval()
    net.bn1.running_mean.normal_()
    net.bn1.running_var.uniform_(0.5, 2)
    sim = QuantizationSimModel(net, images[:2], config_file=config)
    sim.compute_encodings(lambda m: m(images))
    if precisions:
        activation, param = precisions
        kinds = [spec.kind for spec in sim.placement.quantizers]
        sim.apply_precisions([param if k == "param" else activation for k in kinds])
    return sim


def run(model, feeds, optimized=False):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model if isinstance(model, str | bytes) else model.SerializeToString()
    return ort.InferenceSession(data, options).run(None, feeds)


def off_step_share(got, want, step):
    """Share of elements that are not on the same step of the output's grid."""
    return float((np.abs(got - want.detach().numpy()) > 0.5 * step).mean())


def elem_types(model):
    types = {t.name: t.data_type for t in model.graph.initializer}
    return {
        types[node.input[2]]
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    }


# -- of a simulation --------------------------------------------------------


@pytest.mark.parametrize("config", ["default", "default_per_tensor"])
@pytest.mark.parametrize(
    ("activation", "param", "types", "opset"),
    [
        ("int8", "int8", {"UINT8", "INT8"}, 20),
        ("int8", "int4", {"UINT8", "INT4"}, 21),
        ("int4", "int4", {"UINT4", "INT4"}, 21),
        ("int16", "int8", {"UINT16", "INT8"}, 21),
        ("int16", "int16", {"UINT16", "INT16"}, 21),
        ("int5", "int3", {"UINT8", "INT4"}, 21),
        ("int12", "int6", {"UINT16", "INT8"}, 21),
        ("fp16", "fp16", set(), 20),
        ("bf16", "int8", {"INT8"}, 20),
    ],
)
def test_onnxruntime_equals_the_simulation(
    images, config, activation, param, types, opset
):
    sim = simulate(images, (activation, param), config)
    model = build_qdq_model(sim, images[:2], dynamic_batch=True).model
    assert elem_types(model) == {getattr(TensorProto, name) for name in types}
    assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
    with torch.no_grad():
        want = sim.model(images)
    got = run(model, {"x": images.numpy()})
    for a, b in zip(got, want, strict=True):
        step = float((b.max() - b.min()) / 2**10)
        if activation.startswith("int"):
            step = sim.model.fc.output_quantizers[0].get_scale().item()
        # Sums in another order may cross a rounding boundary; float32 has not many
        # more digits than a 16-bit grid.
        width = 3 if activation == "int16" else 1
        assert off_step_share(a, b, width * step) <= 0.01


@pytest.mark.parametrize(
    "precisions", [("int8", "int8"), ("int4", "int4"), ("int4", "int8")]
)
def test_onnxruntime_takes_it_with_its_optimizations(images, precisions):
    model = build_qdq_model(simulate(images, precisions), images[:2]).model
    assert len(run(model, {"x": images[:2].numpy()}, optimized=True)) == 2


def test_params_are_stored_as_integers_once(images):
    sim = simulate(images, ("int8", "int4"))
    model = build_qdq_model(sim, images[:2]).model
    stored = {t.name: t for t in model.graph.initializer}
    assert "conv1.weight" not in stored
    weight = stored["conv1.weight_quantized"]
    assert weight.data_type == TensorProto.INT4
    quantizer = sim.model.conv1.param_quantizers["weight"]
    scale = quantizer.get_scale().detach()
    integers = torch.clamp(torch.round(sim.model.conv1.weight / scale), -8, 7)
    assert np.array_equal(
        onnx.numpy_helper.to_array(weight).astype(np.int64),
        integers.detach().numpy().astype(np.int64),
    )
    (node,) = [n for n in model.graph.node if "conv1.weight_quantized" in n.input]
    assert node.op_type == "DequantizeLinear"
    assert node.attribute[0].name == "axis"
    assert node.attribute[0].i == 0


def test_sites_that_are_off_leave_nothing(images):
    sim = simulate(images)
    sim.apply_precisions(["fp32"] * len(sim.precisions()))
    exported = build_qdq_model(sim, images[:2])
    ops = {node.op_type for node in exported.model.graph.node}
    assert not ops & {"QuantizeLinear", "DequantizeLinear"}
    assert exported.tensors.activations == {}
    assert {node.domain for node in exported.model.graph.node} == {""}


def test_every_encoding_names_a_tensor_of_the_graph(images):
    sim = simulate(images)
    exported = build_qdq_model(sim, images[:2])
    graph = exported.model.graph
    tensors = {name for node in graph.node for name in (*node.input, *node.output)}
    assert set(exported.tensors.activations) <= tensors
    assert {f"{name}_quantized" for name in exported.tensors.params} <= tensors
    on = {s.name for s in sim.sites() if s.kind == "param" and s.quantizer is not None}
    assert set(exported.tensors.params) == on


def test_data_movement_outputs_have_their_sources_encoding(images):
    exported = build_qdq_model(simulate(images), images[:2])
    encodings = exported.tensors.activations
    for node in exported.model.graph.node:
        if node.op_type in ("MaxPool", "Transpose", "Flatten", "Reshape"):
            is_param = node.input[0] not in encodings and "weight" in str(node)
            assert is_param or node.output[0] in encodings
    (pool,) = [n for n in exported.model.graph.node if n.op_type == "MaxPool"]
    assert pool.output[0] in encodings


def test_readers_of_one_input_share_its_nodes():
    class TwoReaders(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x), self.b(x)

    torch.manual_seed(0)
    x = torch.randn(3, 4)
    sim = QuantizationSimModel(TwoReaders().eval(), x)
    sim.compute_encodings(lambda m: m(x))
    model = build_qdq_model(sim, x).model
    readers = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert [n.input[0] for n in readers].count("x") == 1


def test_names_of_inputs_and_outputs(images):
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, first, pair, *, mask):
            return {"sum": self.fc(first) + pair[0], "rest": self.fc(pair[1]) * mask}

    torch.manual_seed(0)
    a, b, c, m = torch.randn(4, 3, 4).unbind()
    example = {"first": a, "pair": (b, c), "mask": m}
    sim = QuantizationSimModel(Nested().eval(), example)
    sim.compute_encodings(lambda model: model(**example))
    model = build_qdq_model(sim, example).model
    assert [i.name for i in model.graph.input] == ["first", "pair_0", "pair_1", "mask"]
    assert [o.name for o in model.graph.output] == ["output_0", "output_1"]
    feeds = {"first": a, "pair_0": b, "pair_1": c, "mask": m}
    got = run(model, {name: value.numpy() for name, value in feeds.items()})
    want = sim.model(**example)
    for x, y in zip(got, want.values(), strict=True):
        assert np.allclose(x, y.detach().numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="output_names must name 2 tensors"):
        build_qdq_model(sim, example, output_names=["y"])


def test_training_mode_and_precisions_are_as_before(images):
    sim = simulate(images)
    sim.model.train()
    sim.model.bn1.eval()
    before = sim.precisions()
    build_qdq_model(sim, images[:2])
    assert sim.model.training
    assert not sim.model.bn1.training
    assert sim.precisions() == before


# -- what cannot be exported ------------------------------------------------


def test_too_wide_integers_name_the_site(images):
    sim = simulate(images)
    precisions = sim.precisions()
    precisions[0] = "int32"
    sim.apply_precisions(precisions)
    with pytest.raises(ValueError, match=r"conv1.*is int32.*int16 or less, fp16"):
        build_qdq_model(sim, images[:2])


def test_wrong_options(images):
    sim = simulate(images)
    with pytest.raises(ValueError, match="opset_version must be between 13 and 20"):
        build_qdq_model(sim, images[:2], opset_version=21)
    with pytest.raises(ValueError, match="dynamo cannot be chosen"):
        build_qdq_model(sim, images[:2], dynamo=True)


def test_lower_opset_is_raised_only_where_needed(images):
    kept = build_qdq_model(simulate(images), images[:2], opset_version=17).model
    assert kept.opset_import[0].version == 17
    sim = simulate(images, ("int16", "int8"))
    raised = build_qdq_model(sim, images[:2], opset_version=17).model
    assert raised.opset_import[0].version == 21
    want = sim.model(images[:2])[0]
    step = sim.model.fc.output_quantizers[0].get_scale().item()
    assert off_step_share(run(raised, {"x": images[:2].numpy()})[0], want, step) <= 0.01


# -- files ------------------------------------------------------------------


def test_export_writes_three_files_and_nothing_else(images, tmp_path):
    export(simulate(images), tmp_path / "new", "net", images[:2])
    assert sorted(os.listdir(tmp_path / "new")) == [
        "net.encodings",
        "net.onnx",
        "net_torch.encodings",
    ]
    onnx.checker.check_model(str(tmp_path / "new" / "net.onnx"), full_check=True)


def test_unwritable_folder_is_an_error_before_any_work(images, tmp_path):
    (tmp_path / "file").write_text("")

    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError(f"the simulation was used: {name}")

    with pytest.raises(OSError, match="file"):
        export(Untouchable(), tmp_path / "file", "net", images[:2])
    with pytest.raises(OSError, match="cannot be written"):
        export_onnx(Untouchable(), images, tmp_path / "file" / "net.onnx")


def test_failure_keeps_old_files(images, tmp_path, monkeypatch):
    sim = simulate(images)
    for name in ("net.onnx", "net.encodings", "net_torch.encodings"):
        (tmp_path / name).write_text("old")
    real, calls = files.atomic_write, []

    def failing(path, content):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device", str(path))
        real(path, content)

    monkeypatch.setattr(files, "atomic_write", failing)
    with pytest.raises(OSError, match="No space left"):
        export(sim, tmp_path, "net", images[:2])
    assert len(calls) == 3
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "net.onnx": "old",
        "net.encodings": "old",
        "net_torch.encodings": "old",
    }


# -- markers to nodes, by hand ----------------------------------------------


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
    byte = Encoding("int8", True, (0.125,), (0,), -128, 127)
    nodes, last = [marker("x", "a0", 0), marker("w", "v", 1)], "a0"
    options = {
        "MaxPool": {"kernel_shape": [2, 2]},
        "Transpose": {"perm": [0, 1, 3, 2]},
    }
    for index, op in enumerate(ops, 1):
        inputs = [last, "v"] if op == "Conv" else [last]
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


def test_marker_without_encoding():
    model = graph_of([marker("x", "y", 3)], [("x", 1)], [("y", 1)])
    with pytest.raises(ValueError, match="site 3 has no encoding"):
        insert_qdq(model, {}, {3: "site"}, [])
