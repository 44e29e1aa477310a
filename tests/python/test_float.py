# SPDX-License-Identifier: BSD-3-Clause
"""Quantization to a narrower floating-point format."""

import pytest
import torch

from aimetpp.quantization.float import FloatQuantizeDequantize


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
        {"exponent_bits": 4, "mantissa_bits": 3},
        {"exponent_bits": 5},
        {"dtype": torch.float16, "exponent_bits": 8, "mantissa_bits": 7},
    ],
)
def test_other_formats_are_errors(arguments):
    with pytest.raises(ValueError, match="dtype must be torch.float16"):
        FloatQuantizeDequantize(**arguments)
