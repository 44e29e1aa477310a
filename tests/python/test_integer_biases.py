# SPDX-License-Identifier: BSD-3-Clause
"""Simulations that round biases to steps of input scale x weight scale."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx_running import run
from test_onnx_biases import BETWEEN, FACTOR, LAYERS, Behind, random, stored
from torch import nn

from aimetpp.export.onnx import build_qdq_model
from aimetpp.quantization.integer_bias import round_bias
from aimetpp.quantsim import QuantizationSimModel


def simulate(model, x, bits=4, **arguments):
    arguments = {"default_output_bw": bits, "default_param_bw": bits, **arguments}
    sim = QuantizationSimModel(model.eval(), x, int32_bias=True, **arguments)
    sim.compute_encodings(lambda m: m(x))
    return sim


def on_grid(bias, step):
    """The rounding, spelled out."""
    return (torch.round(bias.double() / step.double()) * step.double()).float()


def bias_in_use(sim, layer):
    """What the layer's forward reads as its bias."""
    seen = []
    quantizer = layer.bias_rounding["bias"]
    handle = quantizer.register_forward_hook(lambda _, __, y: seen.append(y))
    with torch.no_grad():
        sim.model(sim.dummy_input)
    handle.remove()
    return seen


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("config", ["default", "default_per_tensor"])
def test_the_step_is_input_scale_times_weight_scale(between, config):
    torch.manual_seed(0)
    model = Behind(nn.Conv2d(4, 6, 1), BETWEEN[between])
    sim = simulate(model, random(2, 3, 8, 8), config_file=config)
    (first,) = [s for s in sim.sites() if s.name == "/relu_0"]
    source = first.quantizer.get_scale() * FACTOR.get(between, 1.0)
    weight = sim.model.layer.param_quantizers["weight"].get_scale().flatten()
    (used,) = bias_in_use(sim, sim.model.layer)
    wanted = on_grid(model.layer.bias, source * weight).detach()
    assert torch.allclose(used, wanted, rtol=1e-6, atol=0)
    assert not torch.equal(used, model.layer.bias)


# One layer: its output is what it computes with the rounded bias.
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bits", [4, 8])
def test_layers_equal_the_exported_ones(name, bits):
    layer, shape = LAYERS[name]
    x = random(*shape)
    sim = simulate(layer, x, bits)
    exported = build_qdq_model(sim, x)
    tensors = stored(exported.model)
    integers, steps = tensors["bias_quantized"], tensors["bias_scale"]
    (used,) = bias_in_use(sim, sim.model)
    assert np.array_equal(used.numpy(), integers.astype(np.float32) * steps)
    (got,) = run(exported.model, {exported.model.graph.input[0].name: x.numpy()})
    step = sim.model.output_quantizers[0].get_scale().item()
    off = np.abs(got - sim.model(x).detach().numpy())
    assert (off <= 0.01 * step).mean() >= 0.999


# As runtimes multiply: an exact product, rounded once, where it lies between two floats
# to the even one. Of integers of 10 bits one product in a thousand lies in the middle.
def test_integers_times_steps_are_rounded_once():
    generator = torch.Generator().manual_seed(0)
    step = torch.rand(20_000, generator=generator) * 1e-4 + 1e-6
    integers = torch.randint(-1024, 1024, step.shape, generator=generator)
    expected = integers * step
    assert torch.equal(round_bias(expected, step), expected)


class Net(nn.Module):
    """Layers behind each other, of 4 bits: rounding of biases shows in the output."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        y = F.max_pool2d(F.relu(self.conv1(x)), 2)
        y = F.relu(self.conv2(y)) / 2
        return self.fc(y.flatten(1))


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for layer in (net.conv1, net.conv2, net.fc):
            layer.bias.normal_()
    return net


IMAGES = random(64, 3, 10, 10)


def test_whole_nets_equal_the_exported_ones(net):
    sim = simulate(net, IMAGES)
    exported = build_qdq_model(sim, IMAGES)
    assert len(exported.tensors.biases) == 3
    (got,) = run(exported.model, {"x": IMAGES.numpy()})
    step = sim.model.fc.output_quantizers[0].get_scale().item()

    def share_off(bias_rounded):
        sim.int32_bias = bias_rounded
        off = np.abs(got - sim.model(IMAGES).detach().numpy())
        return (off > 0.5 * step).mean()

    assert share_off(True) <= 0.001
    assert share_off(False) >= 0.01


def test_it_is_on_by_default_and_can_be_turned_off_and_on(net):
    plain = QuantizationSimModel(net.eval(), IMAGES, default_param_bw=4)
    plain.compute_encodings(lambda m: m(IMAGES))
    assert plain.int32_bias is True
    rounded = plain.model(IMAGES)
    plain.int32_bias = False
    before = plain.model(IMAGES)
    assert "int32" not in str(plain.model.fc)
    plain.int32_bias = True
    assert torch.equal(plain.model(IMAGES), rounded)
    # Whoever looks through the quantizers finds quantizers alone.
    assert plain.model.fc.param_quantizers["bias"] is None
    assert "int32" in str(plain.model.fc)
    assert "rounded, int32" in str(plain.explain("fc.bias"))
    assert not torch.equal(plain.model(IMAGES), before)
    plain.int32_bias = False
    assert plain.model.fc.param_quantizers["bias"] is None
    assert torch.equal(plain.model(IMAGES), before)
    with pytest.raises(TypeError, match="True or False"):
        plain.int32_bias = 32


def test_calibration_sees_float_biases(net):
    rounded, plain = (
        QuantizationSimModel(net.eval(), IMAGES, default_param_bw=4, int32_bias=flag)
        for flag in (True, False)
    )
    for _ in range(2):  # the second one finds ranges
        for sim in (rounded, plain):
            sim.compute_encodings(lambda m: m(IMAGES))
    for a, b in zip(
        rounded.quantizers_by_index, plain.quantizers_by_index, strict=True
    ):
        assert torch.equal(a.min, b.min) and torch.equal(a.max, b.max)
    assert rounded.fingerprint() != plain.fingerprint()


def test_steps_follow_bit_widths_and_what_is_on(net):
    sim = simulate(net, IMAGES)
    (narrow,) = bias_in_use(sim, sim.model.fc)
    sim.apply_precisions(["int8"] * len(sim.precisions()))
    (wide,) = bias_in_use(sim, sim.model.fc)
    bias = net.fc.bias.detach()
    error = [(used - bias).abs().max().item() for used in (narrow, wide)]
    assert error[0] > 30 * error[1] > 0
    precisions = sim.precisions()
    for off in ("fp16", "fp32"):  # of activations: no integer grid
        kinds = [spec.kind for spec in sim.placement.quantizers]
        sim.apply_precisions(
            [p if k == "param" else off for k, p in zip(kinds, precisions, strict=True)]
        )
        (used,) = bias_in_use(sim, sim.model.fc)
        assert torch.equal(used, net.fc.bias)
    with sim.quantizers_off():
        assert torch.equal(sim.model(IMAGES), net(IMAGES))


def test_biases_that_32_bits_do_not_hold_stay_float():
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.bias[0] = 1e9
    sim = simulate(layer, random(5, 4), 16)
    (used,) = bias_in_use(sim, sim.model)
    assert torch.equal(used, layer.bias)
    assert build_qdq_model(sim, random(5, 4)).tensors.biases == {}


def test_each_call_of_a_layer_has_its_own_step():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(torch.relu(self.fc(x)))

    torch.manual_seed(0)
    x = random(16, 4)
    sim = simulate(Twice(), x)
    weight = sim.model.fc.param_quantizers["weight"].get_scale().flatten()
    inputs = sim.model.fc.input_quantizers[0], sim.functional_quantizers["/relu_0"]
    used = bias_in_use(sim, sim.model.fc)
    for bias, source in zip(used, inputs, strict=True):
        step = (source.get_scale() * weight).detach()
        assert torch.allclose(bias, on_grid(sim.model.fc.bias, step).detach())
    assert not torch.equal(*used)
    # A layer alone does not know which call this is.
    assert torch.equal(sim.model.fc.bias_rounding["bias"](used[0]), used[0])


def test_functional_layers_and_attention_too():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(random(4, 4)), nn.Parameter(random(4))
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            x = F.linear(x, self.weight, self.bias)
            return self.attention(x, x, x, need_weights=False)[0]

    torch.manual_seed(0)
    model = Functional()
    with torch.no_grad():
        model.attention.in_proj_bias.normal_()
        model.attention.out_proj.bias.normal_()
    x = random(3, 5, 4)
    sim = simulate(model, x)
    rounded = [s for s in sim.sites() if "rounded" in str(sim.explain(s))]
    assert len(rounded) >= 3
    exported = build_qdq_model(sim, x)
    (got,) = run(exported.model, {"x": x.numpy()})
    step = sim.sites()[-1].quantizer.get_scale().item()
    off = np.abs(got - sim.model(x).detach().numpy())
    assert (off <= 1.01 * step).mean() >= 0.999


def test_rounded_biases_are_kept_until_something_changes(net):
    sim = simulate(net, IMAGES)
    report = sim.memory_report()["cached_weights"]
    (first,), (second,) = (bias_in_use(sim, sim.model.fc) for _ in range(2))
    assert first.data_ptr() == second.data_ptr()
    assert sim.memory_report()["cached_weights"] > report
    with torch.no_grad():
        sim.model.fc.bias.data += 1
    (third,) = bias_in_use(sim, sim.model.fc)
    assert torch.allclose(third, first + 1, atol=0.2)
    source = next(s for s in sim.sites() if s.name == "/relu_1").quantizer
    source.set_range(0, 10 * source.get_max().item())
    (fourth,) = bias_in_use(sim, sim.model.fc)
    assert not torch.equal(fourth, third)


@torch.no_grad()
def test_kept_biases_follow_the_dtype():
    """Zeros have the same bytes in float16 as in bfloat16."""
    fc = nn.Linear(4, 4)
    nn.init.zeros_(fc.bias)
    sim = simulate(nn.Sequential(fc, nn.ReLU()), random(2, 4))
    for dtype in (torch.float16, torch.bfloat16, torch.float16, torch.float32):
        assert sim.model.to(dtype)(random(2, 4).to(dtype)).dtype == dtype


def test_gradients_pass_straight_through(net):
    sim = simulate(net, IMAGES)
    sim.model(IMAGES).sum().backward()
    fc = sim.model.fc
    assert fc.bias.grad.abs().sum() > 0
    bias = fc.bias.detach().clone().requires_grad_()
    (fc.bias_rounding["bias"](bias) * torch.arange(10.0)).sum().backward()
    assert torch.equal(bias.grad, torch.arange(10.0))


@pytest.mark.parametrize("portable", [False, True])
def test_torchscript_equals_the_simulation(net, tmp_path, portable):
    sim = simulate(net, IMAGES)
    sim.export_torchscript(tmp_path / "net.pt", portable=portable)
    got = torch.jit.load(tmp_path / "net.pt")(IMAGES[:7])
    assert torch.allclose(got, sim.model(IMAGES[:7]), atol=1e-6)


def test_export_and_compile_equal_the_simulation(net):
    sim = simulate(net, IMAGES)
    want = sim.model(IMAGES)
    program = torch.export.export(sim.model, (IMAGES,))
    assert torch.equal(program.module()(IMAGES), want)
    compiled = torch.compile(sim.model, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(IMAGES), want)
    torch.compiler.reset()


def test_copies_are_independent(net):
    sim = simulate(net, IMAGES)
    want = sim.model(IMAGES)
    copied = copy.deepcopy(sim)
    alone = copy.deepcopy(sim.model)
    loaded = pickle.loads(pickle.dumps(sim.model))
    sim.apply_precisions(["int8"] * len(sim.precisions()))
    for model in (copied.model, alone, loaded):
        assert torch.equal(model(IMAGES), want)
    copied.int32_bias = False
    assert "bias_rounding" not in dict(copied.model.fc.named_children())
    assert sim.model.fc.bias_rounding["bias"] is not None


def test_excluded_layers_and_quantizers_of_ones_own_stay(net):
    sim = simulate(net, IMAGES)
    sim.exclude_layers_from_quantization([sim.model.fc])
    assert sim.model.fc.bias_rounding["bias"] is None
    own = copy.deepcopy(sim.model.conv1.param_quantizers["weight"])
    rounded = sim.model(IMAGES)
    sim.model.conv1.param_quantizers["bias"] = own
    assert "quantized by hand" in str(sim.explain("conv1.bias"))
    by_hand = sim.model(IMAGES)
    assert not torch.equal(by_hand, rounded)
    sim.int32_bias = False
    sim.int32_bias = True
    assert torch.equal(sim.model(IMAGES), by_hand)
    original = sim.get_original_model(sim.model)
    assert torch.equal(original(IMAGES), net(IMAGES))
