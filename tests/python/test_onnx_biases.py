# SPDX-License-Identifier: BSD-3-Clause
"""Biases as 32-bit integers in ONNX files, and encodings that follow from others."""

import json
import math

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from google.protobuf.message import EncodeError
from onnx_running import run
from torch import nn

from aimetpp.export import external_data
from aimetpp.export.onnx import build_qdq_model
from aimetpp.quantsim import QuantizationSimModel


class Behind(nn.Module):
    """A layer behind another one and whatever stands in between."""

    def __init__(self, layer, between):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.layer, self.between = layer, between

    def forward(self, x):
        return self.layer(self.between(F.relu(self.first(x))))


def simulate(model, x, **arguments):
    sim = QuantizationSimModel(model.eval(), x, **arguments)
    sim.compute_encodings(lambda m: m(x))
    return sim


def stored(model):
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


BETWEEN = {
    "nothing": lambda y: y,
    "pool": lambda y: F.max_pool2d(y, 2),
    "views": lambda y: y.permute(0, 2, 3, 1)[:, ::2].permute(0, 3, 1, 2),
    "factor": lambda y: y / 8,
    "factor and pool": lambda y: F.max_pool2d(y * 0.3, 2),
    "pad": lambda y: F.pad(y, (1, 1)),
    "roll": lambda y: y.roll(2, 3),
}
FACTOR = {"factor": 1 / 8, "factor and pool": 0.3}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("config", ["default", "default_per_tensor"])
def test_bias_scale_is_input_scale_times_weight_scale(between, config):
    torch.manual_seed(0)
    model = Behind(nn.Conv2d(4, 6, 1), BETWEEN[between])
    sim = simulate(model, random(2, 3, 8, 8), config_file=config)
    tensors = stored(build_qdq_model(sim, random(2, 3, 8, 8)).model)
    (first,) = [s for s in sim.sites() if s.name == "/relu_0"]
    source = first.quantizer.get_scale() * FACTOR.get(between, 1.0)
    weight = sim.model.layer.param_quantizers["weight"].get_scale().flatten()
    wanted = (source * weight).detach().numpy()
    assert np.allclose(tensors["layer.bias_scale"].flatten(), wanted, rtol=1e-6)
    assert tensors["layer.bias_quantized"].dtype == np.int32
    restored = tensors["layer.bias_quantized"] * tensors["layer.bias_scale"]
    off = np.abs(restored - model.layer.bias.detach().numpy())
    assert (off <= 0.51 * tensors["layer.bias_scale"]).all()


torch.manual_seed(0)
LAYERS = {
    "conv": (nn.Conv2d(4, 6, 3), (8, 4, 8, 8)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), (8, 4, 8, 8)),
    "grouped transposed": (nn.ConvTranspose2d(4, 6, 2, groups=2), (8, 4, 8, 8)),
    "linear": (nn.Linear(4, 6), (64, 4)),
    "linear over tokens": (nn.Linear(4, 6), (8, 20, 4)),
    "conv1d": (nn.Conv1d(4, 6, 3), (8, 4, 30)),
}


# One layer, fed with what the simulation is fed with.
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_layers_equal_the_simulation_within_a_step(name, bits):
    layer, shape = LAYERS[name]
    x = random(*shape)
    sim = simulate(layer, x, default_output_bw=bits)
    exported = build_qdq_model(sim, x)
    (encoding,) = exported.tensors.biases.values()
    assert len(encoding.scale) == layer.bias.numel()
    (got,) = run(exported.model, {exported.model.graph.input[0].name: x.numpy()})
    step = sim.model.output_quantizers[0].get_scale().item()
    off = np.abs(got - sim.model(x).detach().numpy())
    assert (off <= 1.01 * step).mean() >= 0.999


def decibels(signal, noise):
    return 10 * math.log10(np.square(signal).sum() / np.square(noise).sum())


# Flips of the rounding spread through a whole net, but not as far as quantization is
# from float.
def test_whole_nets_are_nearer_to_the_simulation_than_that_is_to_float():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3),
        nn.ReLU(), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    x = random(64, 3, 10, 10)
    sim = simulate(model, x, default_param_bw=4)
    exported = build_qdq_model(sim, x)
    assert len(exported.tensors.biases) == 3
    (got,) = run(exported.model, {exported.model.graph.input[0].name: x.numpy()})
    want, full = (m(x).detach().numpy() for m in (sim.model, model))
    assert decibels(want, got - want) >= decibels(full, want - full) + 10


def test_biases_stay_float_where_integers_cannot_hold_them():
    x = random(5, 4)
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.bias[0] = 1e9
    sim = simulate(layer, x, default_output_bw=16, default_param_bw=16)
    exported = build_qdq_model(sim, x)
    assert exported.tensors.biases == {}
    assert "bias" in stored(exported.model)


def test_biases_of_unquantized_weights_stay_float():
    x = random(5, 4)
    sim = simulate(nn.Linear(4, 3), x)
    sim.exclude_param_from_quantization("weight")
    assert build_qdq_model(sim, x).tensors.biases == {}


def test_int32_bias_can_be_turned_off():
    x = random(5, 4)
    exported = build_qdq_model(simulate(nn.Linear(4, 3), x), x, export_int32_bias=False)
    assert exported.tensors.biases == {}
    assert stored(exported.model)["bias"].dtype == np.float32


# The exporter stores them once, with an Identity node in front of the second layer.
def test_equal_biases_are_integers_each():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))

    x, model = random(16, 4), Two()
    with torch.no_grad():
        model.second.bias.copy_(model.first.bias)
    sim = simulate(model, x, int32_bias=True)
    exported = build_qdq_model(sim, x)
    assert set(exported.tensors.biases) == {"first.bias", "second.bias"}
    assert "Identity" not in {node.op_type for node in exported.model.graph.node}
    (got,) = run(exported.model, {"x": x.numpy()})
    assert np.allclose(got, sim.model(x).detach().numpy(), atol=1e-6)


# One layer called with inputs of two scales has one integer bias for each.
def test_a_reused_layer_has_a_bias_for_each_input():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(torch.relu(self.fc(x)))

    x = random(16, 4)
    sim = simulate(Twice(), x)
    exported = build_qdq_model(sim, x)
    assert len(exported.tensors.biases) == 2
    assert set(exported.tensors.biases) == {"fc.bias", "fc.bias_dequantized_1"}


@pytest.mark.parametrize(
    ("version", "option", "expected"),
    [("1.0.0", None, False), ("1.0.0", True, True), ("2.0.0", None, True),
     ("2.0.0", False, False), ("0.6.1", True, True)],
)  # fmt: skip
def test_which_encodings_files_hold_biases(tmp_path, version, option, expected):
    x = random(5, 4)
    sim = simulate(nn.Linear(4, 3), x)
    sim.onnx.export(
        x, tmp_path / "m.onnx", encoding_version=version, export_int32_bias=option
    )
    text = (tmp_path / "m.encodings").read_text()
    assert ('"bias"' in text) is expected
    assert json.loads(text)["version"] == version


def test_constant_factors_have_derived_encodings():
    class Scaled(nn.Module):
        def forward(self, x):
            return torch.softmax(F.relu(x) / 8, dim=-1)

    x = random(5, 4)
    sim = simulate(Scaled(), x)
    exported = build_qdq_model(sim, x)
    (div,) = [n for n in exported.model.graph.node if n.op_type == "Div"]
    relu = sim.functional_quantizers["/relu_0"]
    derived = exported.tensors.activations[div.output[0]]
    assert derived.scale[0] == pytest.approx(relu.get_scale().item() / 8, rel=1e-6)
    (got,) = run(exported.model, {"x": x.numpy()})
    assert np.allclose(got, sim.model(x).detach().numpy(), atol=1e-6)


# Beyond 2 GiB protobuf does not even say how many bytes there are.
def test_a_size_that_cannot_be_counted_is_too_large():
    class Uncountable:
        def ByteSize(self):  # noqa: N802
            raise EncodeError("Failed to serialize proto")

    assert not external_data.fits_one_file(Uncountable())
    assert external_data.fits_one_file(onnx.ModelProto())


# Protobuf ends at 2 GiB; the limit is lowered here.
def test_large_models_keep_their_weights_beside_them(tmp_path, monkeypatch):
    x = random(5, 64)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    sim = simulate(model, x)
    sim.onnx.export(x, tmp_path / "whole.onnx")
    monkeypatch.setattr(external_data, "MAX_MODEL_BYTES", 2000)
    sim.onnx.export(x, tmp_path / "split.onnx")
    assert {p.name for p in tmp_path.iterdir()} == {
        "whole.onnx", "whole.encodings",
        "split.onnx", "split.onnx.data", "split.encodings",
    }  # fmt: skip
    assert (tmp_path / "split.onnx.data").stat().st_size >= 64 * 64
    feeds = {"input": x.numpy()}
    whole, split = (
        run(str(tmp_path / f"{name}.onnx"), feeds)[0] for name in ("whole", "split")
    )
    assert np.array_equal(whole, split)
