# SPDX-License-Identifier: BSD-3-Clause
"""What leaves a simulation, and comes back, with quantizers that a user put where the
config has none.
"""

import pytest
import torch
from onnx_running import run
from torch import nn

from aimetpp.quantization.affine import QuantizeDequantize
from aimetpp.quantization.float import FloatQuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel

IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(36, 5)

    def forward(self, x):
        return self.fc(self.pool(self.relu(self.conv(x))).flatten(1))


def own(low=-1.0, high=1.5, channels=(), bits=6):
    quantizer = QuantizeDequantize(channels, bits, False)
    quantizer.set_range(torch.full(channels, low), torch.full(channels, high))
    return quantizer


def at_conv_output(model):
    model.conv.output_quantizers[0] = own()


def at_relu_input(model):
    model.relu.input_quantizers[0] = own()


def at_pool_in_float(model):
    model.pool.output_quantizers[0] = FloatQuantizeDequantize(dtype=torch.float16)


def at_both_biases(model):
    model.conv.param_quantizers["bias"] = own(channels=(4,), bits=8)
    model.fc.param_quantizers["bias"] = own(bits=8)


def one_at_two_places(model):
    quantizer = own()
    model.conv.output_quantizers[0] = model.pool.output_quantizers[0] = quantizer


def simulated(put, calibrate=True):
    torch.manual_seed(0)
    sim = QuantizationSimModel(Net().eval(), IMAGES, int32_bias=True)
    if calibrate:
        sim.compute_encodings(lambda model: model(IMAGES))
    put(sim.model)
    return sim


PUT = [at_conv_output, at_relu_input, at_pool_in_float, at_both_biases]
PUT += [one_at_two_places]


@pytest.mark.parametrize("put", PUT)
def test_they_are_exported_like_the_others(put, tmp_path):
    sim = simulated(put)
    expected = sim.model(IMAGES)
    sim.onnx.export(IMAGES, tmp_path / "net.onnx", encoding_version="2.0.0")
    (got,) = run(str(tmp_path / "net.onnx"), {"x": IMAGES.numpy()})
    step = sim.model.fc.output_quantizers[0].get_scale().item()
    off = (torch.from_numpy(got) - expected).abs()
    assert (off > 0.5 * step).sum() <= 1 and off.max() <= 1.01 * step


@pytest.mark.parametrize("put", PUT)
@pytest.mark.parametrize("keyed_by", ["module", "1.0.0", "2.0.0"])
def test_their_encodings_come_back(put, keyed_by, tmp_path):
    sim = simulated(put)
    if keyed_by == "module":
        sim.save_encodings_to_json(tmp_path, "net")
        path = tmp_path / "net.json"
    else:
        sim.onnx.export(IMAGES, tmp_path / "net.onnx", encoding_version=keyed_by)
        path = tmp_path / "net.encodings"

    def put_with_another_range(model):
        put(model)
        for quantizer in rebuilt_own(model):
            quantizer.set_range(-9.0, 9.0)

    def rebuilt_own(model):
        found = [model.conv.output_quantizers[0], model.relu.input_quantizers[0]]
        found += [m.param_quantizers["bias"] for m in (model.conv, model.fc)]
        return [q for q in found if isinstance(q, QuantizeDequantize)]

    rebuilt = simulated(put_with_another_range, calibrate=False)
    rebuilt.load_encodings(path)
    assert torch.equal(rebuilt.model(IMAGES), sim.model(IMAGES))


@pytest.mark.parametrize("outputs", [4, 5])
def test_an_activation_with_one_range_per_channel(outputs, tmp_path):
    """The bias of the layer behind it has no step: its products have several."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, outputs, 1))
    model.append(nn.Flatten())
    model[0].weight.data[0] *= 20
    sim = QuantizationSimModel(model, IMAGES)
    sim.model[1].output_quantizers[0] = QuantizeDequantize((1, 4, 1, 1), 8, False)
    sim.compute_encodings(lambda model: model(IMAGES))
    expected = sim.model(IMAGES)
    bias = sim.model[2].bias
    assert torch.equal(sim.model[2].bias_rounding["bias"](bias), bias)
    path = tmp_path / "net.onnx"
    sim.onnx.export(IMAGES, path, encoding_version="2.0.0")
    step = sim.model[2].output_quantizers[0].get_scale().item()
    for optimized in (False, True):
        (got,) = run(str(path), {"input": IMAGES.numpy()}, optimized=optimized)
        assert (torch.from_numpy(got) - expected).abs().max() <= 1.01 * step
    before = sim.model[1].output_quantizers[0].get_scale().clone()
    sim.model[1].output_quantizers[0].set_range(-9, 9)
    sim.load_encodings(tmp_path / "net.encodings")
    assert torch.equal(sim.model[1].output_quantizers[0].get_scale(), before)


def test_without_an_entry_they_are_kept_or_taken_out():
    sim = simulated(one_at_two_places)
    plain = simulated(lambda model: None)
    content = {"param_encodings": {}, "activation_encodings": {}}
    weight = plain.model.fc.param_quantizers["weight"]
    leaves = [
        {"bitwidth": 8, "dtype": "int", "is_symmetric": "True", "scale": s, "offset": o}
        for s, o in zip(weight.get_scale().flatten().tolist(), [-128] * 5, strict=True)
    ]
    content["param_encodings"]["fc.weight"] = leaves
    sim.load_encodings(content)
    assert len(sim.unplaced_quantizers()) == 2
    sim.load_encodings(content, partial=False)
    assert not sim.unplaced_quantizers()
    assert set(sim.precisions()) == {"fp32", "int8"}


def test_another_format_is_an_error_and_changes_nothing(tmp_path):
    simulated(at_conv_output).save_encodings_to_json(tmp_path, "net")
    other = simulated(
        lambda model: model.conv.output_quantizers.__setitem__(
            0, FloatQuantizeDequantize(dtype=torch.float16)
        )
    )
    before = other.model(IMAGES)
    with pytest.raises(
        ValueError, match=r"conv.output.0 is int6 in the file, but a FloatQ.* \(fp16\)"
    ):
        other.load_encodings(tmp_path / "net.json")
    assert torch.equal(other.model(IMAGES), before)


def test_full_precision_is_without_them_too():
    sim = simulated(one_at_two_places)
    torch.manual_seed(0)
    expected = Net().eval()(IMAGES)
    with sim.quantizers_off():
        assert torch.equal(sim.model(IMAGES), expected)
    assert len(sim.unplaced_quantizers()) == 2
