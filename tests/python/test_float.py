# SPDX-License-Identifier: BSD-3-Clause
"""Quantization to a narrower floating-point format."""

import pytest
import torch
from torch.library import opcheck

from aimetpp import ops
from aimetpp.quantization.float import FloatQuantizeDequantize

NARROW = {
    torch.float16: (5, 10),
    torch.bfloat16: (8, 7),
    torch.float8_e5m2: (5, 2),
    torch.float8_e4m3fn: (4, 3),
}
# The middle between the largest number and the one that would be next. The largest
# is odd but in e4m3, where the middle rounds to it.
LEAST_OVERFLOW = {
    torch.float16: 65520.0,
    torch.bfloat16: 255.5 * 2.0**120,
    torch.float8_e5m2: 61440.0,
    torch.float8_e4m3fn: 464.0 + 2.0**-15,
}


@pytest.mark.parametrize(
    ("arguments", "precision"),
    [
        ({"dtype": torch.float16}, "fp16"),
        ({"exponent_bits": 5, "mantissa_bits": 10}, "fp16"),
        ({"dtype": torch.bfloat16}, "bf16"),
        ({"exponent_bits": 8, "mantissa_bits": 7}, "bf16"),
        ({"dtype": torch.float16, "exponent_bits": 5, "mantissa_bits": 10}, "fp16"),
    ],
)
def test_formats(arguments, precision):
    quantizer = FloatQuantizeDequantize(**arguments)
    assert (quantizer.precision, quantizer.bitwidth) == (precision, 16)
    assert quantizer.is_initialized()
    # 1 + 2^-9 is a float16 number; bfloat16 has 7 bits after the point.
    x = torch.tensor([1 + 2**-9, -3.0], requires_grad=True)
    y = quantizer(x)
    assert y.tolist() == [1 + 2**-9 if precision == "fp16" else 1.0, -3.0]
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_values_beyond_float16_become_infinite():
    y = FloatQuantizeDequantize(dtype=torch.float16)(torch.tensor([65504.0, 1e5]))
    assert y.tolist() == [65504.0, float("inf")]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"dtype": torch.int8},
        {"exponent_bits": 4, "mantissa_bits": 2},
        {"exponent_bits": 5},
        {"dtype": torch.float16, "exponent_bits": 8, "mantissa_bits": 7},
    ],
)
def test_other_formats_are_errors(arguments):
    with pytest.raises(ValueError, match="dtype must be torch.float16"):
        FloatQuantizeDequantize(**arguments)


def random_bits(count):
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (count,), generator=generator)
    return bits.to(torch.int32).view(torch.float32)


@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize("dtype", NARROW)
def test_rounds_as_a_cast_does(dtype, saturate):
    # All numbers of the format, the middles between neighbours, and any bits.
    width = torch.finfo(dtype).bits
    every = torch.arange(2**width).to(getattr(torch, f"uint{width}")).view(dtype)
    numbers = every.float()
    middles = (numbers[1:] + numbers[:-1]) / 2
    x = torch.cat([numbers, middles, random_bits(20000)])
    y = ops.float_quantize(x, *NARROW[dtype], saturate)
    expected = x.to(dtype).float()
    # A cast to e4m3 gives NaN or the largest, as the version of PyTorch is.
    overflow = torch.nan if dtype == torch.float8_e4m3fn else torch.inf
    end = torch.tensor(torch.finfo(dtype).max if saturate else overflow)
    beyond = x.double().abs() >= LEAST_OVERFLOW[dtype]
    expected = torch.where(beyond, end.copysign(x), expected)
    torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(y.signbit()[~y.isnan()], x.signbit()[~y.isnan()])


def test_float8_saturates():
    quantizer = FloatQuantizeDequantize(torch.float8_e4m3fn)
    assert (quantizer.precision, quantizer.bitwidth) == ("fp8_e4m3", 8)
    # 464 is the tie above 448.
    x = torch.tensor([0.3, 464.0, 465.0, -torch.inf, torch.nan], requires_grad=True)
    y = quantizer(x)
    assert y[:4].tolist() == [0.3125, 448.0, 448.0, -448.0] and y[4].isnan()
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_scale_by_channel():
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    scale = x.abs().amax((0, 2)) / 448
    quantizer = FloatQuantizeDequantize(
        exponent_bits=4, mantissa_bits=3, scale=scale, channel_axis=1
    )
    spread = scale.view(3, 1)
    expected = (x / spread).to(torch.float8_e4m3fn).float() * spread
    assert torch.equal(quantizer(x), expected)
    channels_last = x.unsqueeze(3).contiguous(memory_format=torch.channels_last)
    assert torch.equal(quantizer(channels_last), expected.unsqueeze(3))
    assert quantizer.state_dict()["scale"].equal(scale)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0.0}, "positive and finite"),
        ({"scale": torch.ones(3)}, "1 value where channel_axis is not given"),
        ({"channel_axis": 0}, "needs a scale"),
    ],
)
def test_wrong_scales_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        FloatQuantizeDequantize(torch.float8_e5m2, **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((4, 4, True), ValueError, "exponent_bits and mantissa_bits must be"),
        ((2, 1, False), ValueError, "saturate must be true"),
        ((4, 3, True, None, 0), ValueError, "without a scale"),
        ((4, 3, True, torch.ones(3)), ValueError, "scale must have 1 elements"),
        ((4, 3, True, torch.ones(2), 0), ValueError, "scale must have 3 elements"),
        ((4, 3, True, torch.ones(3), 1), IndexError, "channel_axis must be in"),
        ((4, 3, True, torch.ones(1).double()), TypeError, "scale must be float32"),
    ],
)
def test_wrong_arguments_of_the_op(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.float_quantize(torch.ones(3), *arguments)


def test_scale_that_requires_a_gradient_is_an_error():
    scale = torch.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match="scale has no gradient"):
        ops.float_quantize(torch.ones(3), 4, 3, True, scale)


def test_a_gradient_on_another_device_is_an_error():
    backward = torch.ops.aimetpp.float_quantize_backward
    with pytest.raises(ValueError, match="grad must be on x's device cpu, got meta"):
        backward(torch.ones(3, device="meta"), torch.ones(3), 4, 3, True)


@pytest.mark.parametrize("bits", [(5, 10), (4, 3)])
@pytest.mark.parametrize("saturate", [True, False])
@pytest.mark.parametrize("axis", [None, 1])
def test_opcheck(bits, saturate, axis):
    x = torch.randn(3, 4, 5, requires_grad=True)
    scale = torch.linspace(0.5, 1, 1 if axis is None else 4)
    arguments = (*bits, saturate, scale, axis)
    opcheck(torch.ops.aimetpp.float_quantize.default, (x, *arguments))
    x = x.detach()
    backward = torch.ops.aimetpp.float_quantize_backward.default
    opcheck(backward, (torch.randn_like(x), x, *arguments))


def test_compiles_and_exports():
    quantizer = FloatQuantizeDequantize(torch.float8_e4m3fn, scale=0.01)
    x = torch.randn(5, 4)
    compiled = torch.compile(quantizer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), quantizer(x))
    exported = torch.export.export(quantizer, (x,)).module()
    assert torch.equal(exported(x), quantizer(x))
