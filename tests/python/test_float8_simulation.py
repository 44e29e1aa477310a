# SPDX-License-Identifier: BSD-3-Clause
"""8-bit floating-point formats in a simulation."""

import pytest
import torch
from torch import nn

from aimetpp.quantsim import QuantizationSimModel
from aimetpp.quantsim.config_utils import set_quantizers_to_float8


@pytest.fixture
def calibrated():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    )
    x = torch.randn(4, 3, 8, 8)
    sim = QuantizationSimModel(model.eval(), x)
    sim.compute_encodings(lambda m: m(x))
    return sim, x


def rounded(x, largest, dtype=torch.float8_e4m3fn):
    """`x` with the scale that makes `largest` the format's largest."""
    scale = largest / torch.finfo(dtype).max
    bound = torch.finfo(dtype).max
    return (x / scale).clamp(-bound, bound).to(dtype).float() * scale


def test_chosen_modules_compute_as_written_out(calibrated):
    sim, x = calibrated
    conv, linear = sim.model[0], sim.model[3]

    def largest(quantizer):
        ends = torch.maximum(quantizer.min.abs(), quantizer.max.abs())
        return ends.detach().clone()

    weights = [rounded(m.weight, largest(m.param_quantizers["weight"])) for m in
               (conv, linear)]  # fmt: skip
    inputs, outputs = (
        largest(conv.input_quantizers[0]),
        largest(linear.output_quantizers[0]),
    )
    relu = sim.model[1].output_quantizers[0]
    set_quantizers_to_float8(sim, [nn.Conv2d, nn.Linear])
    assert sim.precisions().count("fp8_e4m3") == 4
    y = nn.functional.conv2d(rounded(x, inputs), weights[0], conv.bias)
    y = relu(y.relu()).flatten(1)
    y = rounded(nn.functional.linear(y, weights[1], linear.bias), outputs)
    torch.testing.assert_close(sim.model(x), y, rtol=1e-5, atol=1e-5)


def test_another_format_and_back(calibrated):
    sim, x = calibrated
    before = sim.model(x)
    set_quantizers_to_float8(sim, lambda module: True)
    set_quantizers_to_float8(sim, lambda module: True, torch.float8_e5m2)
    assert set(sim.precisions()) == {"fp8_e5m2"}
    coarse = sim.model(x)
    assert not torch.equal(coarse, before)
    coarse.sum().backward()
    assert sim.model[0].weight.grad.abs().sum() > 0
    sim.apply_precisions(["int8"] * len(sim.precisions()))
    assert torch.equal(sim.model(x), before)


def test_errors(calibrated, tmp_path):
    sim, x = calibrated
    with pytest.raises(ValueError, match="dtype must be torch.float8_e4m3fn or"):
        set_quantizers_to_float8(sim, [nn.Linear], torch.float16)
    with pytest.raises(TypeError, match="set_quantizers_to_float8: arg must be"):
        set_quantizers_to_float8(sim, "Linear")
    uncalibrated = QuantizationSimModel(
        nn.Sequential(nn.Linear(3, 2)), torch.ones(1, 3)
    )
    with pytest.raises(RuntimeError, match="run sim.compute_encodings first"):
        set_quantizers_to_float8(uncalibrated, [nn.Linear])
    set_quantizers_to_float8(sim, [nn.Linear])
    with pytest.raises(ValueError, match="is fp8_e4m3, which encodings files and ONNX"):
        sim.onnx.export((x,), str(tmp_path / "model.onnx"))
