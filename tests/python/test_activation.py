# SPDX-License-Identifier: BSD-3-Clause
"""nn.ReLU and its like run in one pass with the quantizer behind them, where nobody
can see what is between: the same bits, the same tensors written.
"""

import copy

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from aimetpp.quantization import QuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel


class OwnForward(nn.ReLU):
    def forward(self, x):
        return torch.relu(x) + 1


class SameForward(nn.ReLU6):
    pass


CLAMPS = {
    "relu": lambda inplace: nn.ReLU(inplace),
    "relu6": lambda inplace: nn.ReLU6(inplace),
    "hardtanh": lambda inplace: nn.Hardtanh(-0.7, 1.3, inplace),
    "subclass": lambda inplace: SameForward(inplace),
}
OTHERS = {
    "own forward": lambda: OwnForward(),
    "ends that are no floats": lambda: nn.Hardtanh(-1, 1),
    "another function": lambda: nn.LeakyReLU(),
}


class Model(nn.Module):
    """Keeps what goes in and what comes out of its activation function."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, x):
        self.given = x * 1
        self.result = self.act(self.given)
        return self.result.reshape(-1)


def data():
    x = torch.randn(40, 7, generator=torch.Generator().manual_seed(0)) * 4
    special = torch.tensor([0.0, -0.0, torch.nan, torch.inf, -torch.inf, 6.0, -1e-40])
    return torch.cat([x, special[None]])


def simulate(act, low=-2.0, high=5.0, bitwidth=4):
    """With one quantizer, behind the activation function."""
    sim = QuantizationSimModel(Model(act), torch.randn(3, 7))
    model = sim.model
    model.act.input_quantizers[0] = None
    for key in model.functional_quantizers:
        model.functional_quantizers[key] = None
    quantizer = QuantizeDequantize((), bitwidth, False)
    quantizer.set_range(low, high)
    model.act.output_quantizers[0] = quantizer
    return model


def ops_of(model, x):
    """The names of the ops that a forward without gradients runs."""
    with torch.no_grad(), torch.profiler.profile() as profile:
        model(x)
    return {event.name for event in profile.events()}


def runs_alone(names):
    """Whether one of the ops is an activation function."""
    return any(
        part in name for name in names for part in ("relu", "clamp_min", "hardtanh")
    )


def expected(act, model, x):
    """The two, one after the other."""
    act = copy.deepcopy(act)
    act.inplace = False
    return model.act.output_quantizers[0](act(x))


def assert_same_bits(a, b):
    assert torch.equal(a.isnan(), b.isnan())
    a, b = a.nan_to_num(7.25), b.nan_to_num(7.25)
    assert torch.equal(a, b) and torch.equal(a.signbit(), b.signbit())


class TestOnePass:
    @pytest.mark.parametrize("inplace", [False, True])
    @pytest.mark.parametrize("make", CLAMPS.values(), ids=CLAMPS)
    @pytest.mark.parametrize("low,high", [(-2.0, 5.0), (0.0, 9.0), (-3.0, -0.5)])
    @pytest.mark.parametrize("bitwidth", [4, 24])
    def test_same_bits(self, make, inplace, low, high, bitwidth):
        act, x = make(inplace), data()
        model = simulate(act, low, high, bitwidth)
        assert not runs_alone(ops_of(model, x))
        with torch.no_grad():
            y = model(x)
            assert_same_bits(y, expected(act, model, x).view(-1))

    @pytest.mark.parametrize("inplace", [False, True])
    def test_writes_what_the_two_would_write(self, inplace):
        model, x = simulate(nn.ReLU(inplace)), data()
        with torch.no_grad():
            model(x)
        given, result = model.given, model.result
        assert (result is given) == inplace
        if inplace:
            assert given._version > 0
        else:
            assert_same_bits(given, x)
            assert result.data_ptr() != given.data_ptr()
            assert result.is_contiguous()

    def test_channels_last(self):
        x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
        model = simulate(nn.ReLU())
        with torch.no_grad():
            model(x)
        assert model.result.is_contiguous(memory_format=torch.channels_last)
        reference = expected(nn.ReLU(), model, x)
        assert torch.equal(model.result, reference)

    def test_inference_mode(self):
        model, x = simulate(nn.ReLU6(inplace=True)), data()
        with torch.inference_mode():
            y = model(x).clone()
        assert_same_bits(y, expected(nn.ReLU6(), model, x).detach().view(-1))

    def test_changed_ends_count(self):
        act, x = nn.ReLU6(), data()
        model = simulate(act)
        model.act.max_val = 2.0
        act.max_val = 2.0
        with torch.no_grad():
            assert_same_bits(model(x), expected(act, model, x).view(-1))


class TestOneAfterTheOther:
    @pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
    def test_other_functions(self, make):
        act, x = make(), data()
        model = simulate(act)
        assert runs_alone(ops_of(model, x))
        with torch.no_grad():
            assert_same_bits(model(x), expected(act, model, x).view(-1))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_other_dtypes(self, dtype):
        act, x = nn.Hardtanh(-0.7, 1.3), data().to(dtype)
        model = simulate(act)
        with torch.no_grad():
            assert_same_bits(model(x), expected(act, model, x).view(-1))

    def test_with_gradients(self):
        act, x = nn.ReLU(), data().requires_grad_()
        model = simulate(act)
        y = model(x)
        y.nan_to_num().sum().backward()
        inside = (x > 0) & ((x / (7 / 15)).round() <= 11)  # of 15 steps, 4 below 0
        assert torch.equal(x.grad, inside.float())

    def test_function_mode_sees_it(self):
        seen = []

        class Mode(TorchFunctionMode):
            def __torch_function__(self, func, types, args=(), kwargs=None):
                seen.append(func)
                return func(*args, **(kwargs or {}))

        model, x = simulate(nn.ReLU()), data()
        with torch.no_grad(), Mode():
            model(x)
        assert torch.nn.functional.relu in seen

    def test_tangents_are_refused(self):
        model, x = simulate(nn.ReLU()), data()
        with forward_ad.dual_level(), torch.no_grad():
            model.given = forward_ad.make_dual(x, torch.ones_like(x))
            with pytest.raises(RuntimeError, match=r"forward-mode derivative \(jvp\)"):
                model.act(model.given)

    def test_quantized_input(self):
        model, x = simulate(nn.ReLU()), data()
        quantizer = QuantizeDequantize((), 2, False)
        quantizer.set_range(-1.0, 2.0)
        model.act.input_quantizers[0] = quantizer
        with torch.no_grad():
            y = model(x)
            reference = expected(nn.ReLU(), model, quantizer(x))
        assert_same_bits(y, reference.view(-1))

    def test_overwritten_inference_tensor_is_refused(self):
        model = simulate(nn.ReLU(inplace=True))
        with torch.inference_mode():
            x = data()
        with torch.no_grad(), pytest.raises(RuntimeError, match="[Ii]nference"):
            model.act(x)
