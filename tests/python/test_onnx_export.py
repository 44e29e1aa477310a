# SPDX-License-Identifier: BSD-3-Clause
"""ONNX with QDQ nodes: what stands in the file, and that it computes the same."""

import os

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from export_models import Nested, TwoReaders, nested_example
from onnx import TensorProto
from onnx_running import run
from torch import nn

from aimetpp.export import export_files, files
from aimetpp.export.onnx import build_qdq_model, export_onnx
from aimetpp.quantsim import QuantizationSimModel


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


def off_step_share(got, want, step):
    """Share of elements that are not on the same step of the output's grid."""
    return float((np.abs(got - want.detach().numpy()) > 0.5 * step).mean())


def elem_types(model):
    types = {t.name: t.data_type for t in model.graph.initializer}
    return {
        types[node.input[2]]
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        and len(node.input) > 2  # biases have no zero point
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
    sim.int32_bias = True
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


def test_an_example_input_of_a_wrong_shape_is_named(images, tmp_path):
    sim = simulate(images)
    wrong = torch.randn(2, 5, 8, 8)
    for act in (
        lambda: sim.export(tmp_path, "net", wrong),
        lambda: sim.export_torchscript(tmp_path / "net.pt", example_inputs=wrong),
    ):
        with pytest.raises(RuntimeError, match=r"example input.*\(2, 5, 8, 8\)"):
            act()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(4, 3), (5, 4)),
        (nn.Linear(4, 3), (2, 5, 4)),  # MatMul and Add
        (nn.Conv1d(4, 3, 1), (2, 4, 5)),
        (nn.ConvTranspose1d(4, 3, 1), (2, 4, 5)),
        (nn.ConvTranspose1d(4, 6, 1, groups=2), (2, 4, 5)),
    ],
)
@pytest.mark.parametrize(
    ("param", "bias"),
    [
        ("int16", 1e3),  # in steps of input scale x weight scale more than 32 bits
        ("fp16", 1.0),  # that 8 bits would round by many output steps
    ],
)
def test_onnxruntime_leaves_weights_and_biases_as_they_are(layer, shape, param, bias):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    with torch.no_grad():
        for parameter, size in ((layer.weight, 1.0), (layer.bias, bias)):
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    sim = QuantizationSimModel(layer, x)
    sim.compute_encodings(lambda m: m(x))
    kinds = [spec.kind for spec in sim.placement.quantizers]
    sim.apply_precisions([param if k == "param" else "int16" for k in kinds])
    model = build_qdq_model(sim, x).model
    feeds = {model.graph.input[0].name: x.numpy()}
    step = sim.model.output_quantizers[0].get_scale().item()
    want = sim.model(x).detach().numpy()
    for optimized in (False, True):
        (got,) = run(model, feeds, optimized)
        assert np.abs(got - want).max() <= 3 * step


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
    torch.manual_seed(0)
    x = torch.randn(3, 4)
    sim = QuantizationSimModel(TwoReaders().eval(), x)
    sim.compute_encodings(lambda m: m(x))
    model = build_qdq_model(sim, x).model
    readers = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert [n.input[0] for n in readers].count("x") == 1


def test_names_of_inputs_and_outputs():
    torch.manual_seed(0)
    example = nested_example()
    sim = QuantizationSimModel(Nested().eval(), example)
    sim.compute_encodings(lambda model: model(**example))
    model = build_qdq_model(sim, example).model
    assert [i.name for i in model.graph.input] == ["first", "pair_0", "pair_1", "mask"]
    assert [o.name for o in model.graph.output] == ["output_0", "output_1"]
    first, (left, right), mask = example.values()
    feeds = {"first": first, "pair_0": left, "pair_1": right, "mask": mask}
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
    with pytest.raises(ValueError, match=r"conv1.*is int32.*int16 or less, fp8_e4m3"):
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
    simulate(images).export(tmp_path / "new", "net", images[:2])
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
        net = str(tmp_path / "file" / "net")
        export_files(Untouchable(), net, net, images[:2])
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
        sim.export(tmp_path, "net", images[:2])
    assert len(calls) == 3
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "net.onnx": "old",
        "net.encodings": "old",
        "net_torch.encodings": "old",
    }
