# SPDX-License-Identifier: BSD-3-Clause
"""8-bit floats in encodings files and in ONNX, node by node in onnxruntime."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_running import run
from test_qdq import graph_of, marker
from torch import nn

from aimetpp.export.encodings import (
    Encoding,
    leaf_0_6_1,
    leaf_1_0_0,
    leaf_2_0_0,
    save_encodings_to_json,
)
from aimetpp.export.param_integers import float8_bytes
from aimetpp.export.qdq import insert_qdq
from aimetpp.quantsim import QuantizationSimModel

DTYPES = {"fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
E4M3 = Encoding("fp8_e4m3", True, (0.25,), (0,))
E5M2_CHANNELS = Encoding("fp8_e5m2", True, (0.5, 2.0), (0, 0), channel_axis=0)


def make_sim(precision, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 4)
    )
    x = torch.randn(4, 3, 8, 8)
    sim = QuantizationSimModel(model.eval(), x, **settings)
    sim.compute_encodings(lambda m: m(x))
    sim.apply_precisions([precision] * len(sim.precisions()))
    return sim, x


def test_leaves():
    bits = {"exponent_bits": 4, "mantissa_bits": 3}
    assert leaf_0_6_1(E4M3) == [
        {"bitwidth": 8, "dtype": "float", **bits, "scale": 0.25}
    ]
    assert leaf_1_0_0("x", E4M3) == {
        "name": "x", "dtype": "FLOAT", "bw": 8, "enc_type": "PER_TENSOR", **bits,
        "scale": [0.25],
    }  # fmt: skip
    assert leaf_1_0_0("w", E5M2_CHANNELS)["enc_type"] == "PER_CHANNEL"
    assert leaf_2_0_0("x", E4M3) == {
        "name": "x", "output_dtype": "float8e4m3fn", "y_scale": 0.25
    }  # fmt: skip
    assert leaf_2_0_0("w", E5M2_CHANNELS) == {
        "name": "w", "output_dtype": "float8e5m2", "y_scale": [0.5, 2.0], "axis": 0
    }  # fmt: skip


def every_number_and_tie(dtype, scale):
    """The format's numbers, the middles between neighbours and what is beyond."""
    numbers = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    numbers = numbers[numbers.isfinite()].sort().values
    middles = (numbers[1:] + numbers[:-1]) / 2
    beyond = torch.tensor([-1e30, -2.0, 2.0, 1e30]) * numbers.max()
    return (torch.cat([numbers, middles, beyond]) * scale).numpy()


@pytest.mark.parametrize("precision", DTYPES)
def test_nodes_compute_the_format(precision):
    encoding = Encoding(precision, True, (0.25,), (0,))
    model = graph_of([marker("x", "y", 3)], [("x", 1)], [("y", 1)], opset=19)
    insert_qdq(model, {3: encoding}, {3: "site"}, [])
    onnx.checker.check_model(model)
    # What stands around them keeps onnxruntime from fusing them with others.
    nodes = [n.op_type for n in model.graph.node]
    assert nodes == ["Min", "QuantizeLinear", "DequantizeLinear", "Max"]
    x = every_number_and_tie(DTYPES[precision], 0.25)
    exponent, mantissa = (4, 3) if precision == "fp8_e4m3" else (5, 2)
    expected = torch.ops.aimetpp.float_quantize(
        torch.from_numpy(x), exponent, mantissa, True, torch.tensor([0.25])
    ).numpy()
    for optimized in (False, True):
        (y,) = run(model, {"x": x}, optimized)
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("precision", DTYPES)
def test_parameters_are_stored_in_the_format(precision):
    encoding = Encoding(precision, True, (0.5, 2.0), (0, 0), channel_axis=0)
    row = every_number_and_tie(DTYPES[precision], 0.5)
    weight = np.stack([row, 4 * row])
    weight_tensor = onnx.numpy_helper.from_array(weight, "w")
    # The sum of a row of one input and the weight shows the weight.
    nodes = [marker("w", "v", 1), helper.make_node("Add", ["x", "v"], ["y"])]
    model = graph_of(nodes, [("x", 1)], [("y", 1)], [weight_tensor], opset=19)
    for info in (model.graph.input[0], model.graph.output[0]):
        info.type.tensor_type.shape.Clear()
    insert_qdq(model, {1: encoding}, {1: "site"}, [1])
    stored = next(t for t in model.graph.initializer if t.name.endswith("_quantized"))
    types = (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2)
    assert stored.data_type == types[list(DTYPES).index(precision)]
    assert stored.raw_data == float8_bytes(weight, encoding)
    (y,) = run(model, {"x": np.zeros((1, 1), np.float32)})
    exponent, mantissa = (4, 3) if precision == "fp8_e4m3" else (5, 2)
    expected = torch.ops.aimetpp.float_quantize(
        torch.from_numpy(weight), exponent, mantissa, True, torch.tensor([0.5, 2.0]), 0
    )
    np.testing.assert_array_equal(y, expected.numpy())


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("version", ["0.6.1", "1.0.0", "2.0.0"])
def test_export_runs_and_comes_back(tmp_path, precision, version):
    sim, x = make_sim(precision)
    path = tmp_path / "model.onnx"
    sim.onnx.export((x,), str(path), encoding_version=version)
    model = onnx.load(path)
    (opset,) = (o.version for o in model.opset_import if not o.domain)
    assert opset >= 19
    expected = sim.model(x).detach().numpy()
    for optimized in (False, True):
        (y,) = run(str(path), {model.graph.input[0].name: x.numpy()}, optimized)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * scale)
    other, _ = make_sim("int8")
    other.load_encodings(str(path.with_suffix(".encodings")))
    assert other.precisions() == sim.precisions()
    for mine, theirs in zip(
        sim.quantizers_by_index, other.quantizers_by_index, strict=True
    ):
        assert torch.equal(mine.scale.flatten(), theirs.scale.flatten())
    assert torch.equal(other.model(x), sim.model(x))


def test_file_keyed_by_modules(tmp_path):
    sim, x = make_sim("fp8_e4m3")
    save_encodings_to_json(sim, tmp_path, "all")
    other, _ = make_sim("int8")
    other.load_encodings(str(tmp_path / "all.json"))
    assert torch.equal(other.model(x), sim.model(x))
    # A change of precision and back starts from the loaded scales.
    count = len(sim.precisions())
    other.apply_precisions(["int8"] * count)
    other.apply_precisions(["fp8_e4m3"] * count)
    torch.testing.assert_close(other.model(x), sim.model(x))


def test_mixed_with_integers_and_biases(tmp_path):
    """A float layer between integer ones: no 32-bit bias for it, but for them."""
    sim, x = make_sim("int8")
    precisions = sim.precisions()
    for index, spec in enumerate(sim.placement.quantizers):
        if sim.graph.site_name(spec.sites[0]).startswith("4"):
            precisions[index] = "fp8_e4m3"
    assert "fp8_e4m3" in precisions
    sim.apply_precisions(precisions)
    path = tmp_path / "model.onnx"
    sim.onnx.export((x,), str(path))
    model = onnx.load(path)
    stored = {t.data_type for t in model.graph.initializer}
    assert {TensorProto.INT8, TensorProto.INT32, TensorProto.FLOAT8E4M3FN} <= stored
    (y,) = run(str(path), {model.graph.input[0].name: x.numpy()})
    expected = sim.model(x).detach().numpy()
    np.testing.assert_allclose(y, expected, rtol=0, atol=0.02 * np.abs(expected).max())


class Everything(nn.Module):
    """Ops with which onnxruntime fuses quantizing nodes, or passes them through."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 6, 2, 2)
        self.proj = nn.Linear(6, 6)
        self.out = nn.Linear(6, 4, bias=False)

    def forward(self, x):
        y = nn.functional.leaky_relu(self.conv(x)).relu()
        y = nn.functional.max_pool2d(self.up(y), 2)
        y = nn.functional.avg_pool2d(torch.cat([y, y * y], 1), 2)[:, :6]
        y = y.flatten(2).transpose(1, 2)  # [N, 16, 6]: a MatMul, not a Gemm
        z = self.proj(y)
        scores = (z @ y.transpose(1, 2)).softmax(-1)
        return self.out(torch.sigmoid(scores @ y) + z.clamp(-1, 1)).mean(1)


@pytest.mark.parametrize("opset", [19, 20])
def test_onnxruntime_optimizes_it_without_harm(tmp_path, opset):
    torch.manual_seed(0)
    model, x = Everything().eval(), torch.randn(2, 3, 8, 8)
    sim = QuantizationSimModel(model, x)
    sim.compute_encodings(lambda m: m(x))
    sim.apply_precisions(["fp8_e4m3"] * len(sim.precisions()))
    path = tmp_path / "model.onnx"
    sim.onnx.export((x,), str(path), opset_version=opset)
    expected = sim.model(x).detach().numpy()
    for optimized in (False, True):
        (y,) = run(
            str(path), {onnx.load(path).graph.input[0].name: x.numpy()}, optimized
        )
        # Sums in another order tip over a rounding here and there.
        np.testing.assert_allclose(y, expected, atol=0.07 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(4, 6), (8, 4)),
        (nn.Linear(4, 6), (2, 8, 4)),  # a MatMul and an Add
        (nn.Linear(4, 6, bias=False), (2, 8, 4)),
        (nn.Conv2d(4, 6, 3), (2, 4, 5, 5)),
        (nn.ConvTranspose2d(4, 6, 3), (2, 4, 5, 5)),
    ],
)
def test_weights_behind_integers_are_optimized_without_harm(layer, shape, tmp_path):
    torch.manual_seed(0)
    x, path = torch.randn(shape), str(tmp_path / "net.onnx")
    sim = QuantizationSimModel(nn.Sequential(layer, nn.Sigmoid()).eval(), x)
    sim.compute_encodings(lambda m: m(x))
    kinds = [spec.kind for spec in sim.placement.quantizers]
    sim.apply_precisions(["fp8_e4m3" if k == "param" else "int8" for k in kinds])
    sim.onnx.export(x, path)
    step = sim.model[1].output_quantizers[0].get_scale().item()
    for optimized in (False, True):
        (got,) = run(path, {"input": x.numpy()}, optimized=optimized)
        assert (torch.from_numpy(got) - sim.model(x)).abs().max() <= 1.001 * step


def test_torchscript(tmp_path):
    sim, x = make_sim("fp8_e4m3")
    for portable in (False, True):
        path = tmp_path / f"{portable}.pt"
        sim.export_torchscript(str(path), portable=portable)
        torch.testing.assert_close(torch.jit.load(path)(x), sim.model(x))


def test_files_that_do_not_say_which_format(tmp_path):
    sim, x = make_sim("fp8_e4m3")
    save_encodings_to_json(sim, tmp_path, "all")
    content = json.loads((tmp_path / "all.json").read_text())
    for entries in content["param_encodings"].values():
        for entry in entries:
            del entry["exponent_bits"]
    with pytest.raises(ValueError, match="4 exponent_bits and 3 mantissa_bits, or 5"):
        sim.load_encodings(content)


def test_not_calibrated(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2))
    sim = QuantizationSimModel(model, torch.ones(1, 3))
    sim.apply_precisions(["fp8_e4m3"] * len(sim.precisions()))
    with pytest.raises(RuntimeError, match="has no scale: run"):
        sim.onnx.export((torch.ones(1, 3),), str(tmp_path / "model.onnx"))
