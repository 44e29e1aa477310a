# SPDX-License-Identifier: BSD-3-Clause
"""A quantizer whose scale is learnt: the gradient of LSQ, and what keeps its value."""

from __future__ import annotations

import math

import pytest
import torch

from aimetpp.quantization import QuantizeDequantize

torch.set_num_threads(1)


@pytest.mark.parametrize("shape", [(), (3, 1)])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("samples_first", [True, False])
def test_a_gradient_step_on_the_scale_is_that_of_lsq(shape, symmetric, samples_first):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 8, generator=generator)
    upstream = torch.randn(3, 8, generator=generator)
    quantizer = QuantizeDequantize(shape, 4, symmetric)
    quantizer.set_range(-0.9, 1.4)
    quantizer.learn("scale", samples_first=samples_first)
    step = quantizer.get_scale().detach().clone()
    offset = quantizer.get_offset().detach().clone()
    (quantizer(x) * upstream).sum().backward()

    # Equation 3 of the paper, slowly: v/s rounded less v/s inside, the end outside.
    low = int(quantizer.grid[0]) + offset
    high = int(quantizer.grid[1]) + offset
    ratio = x / step
    slope = torch.where(
        ratio.round() < low, low, torch.where(ratio.round() > high, high, 0.0)
    )
    inside = (ratio.round() >= low) & (ratio.round() <= high)
    slope = torch.where(inside, ratio.round() - ratio, slope)
    gradient = (
        (upstream * slope).sum()
        if shape == ()
        else ((upstream * slope).sum(1, keepdim=True))
    )
    elements = x.numel() / max(1, math.prod(shape))
    if samples_first:
        elements /= 3
    largest = torch.maximum(low.abs(), high.abs())
    expected = step - 0.1 * gradient / (elements * largest).sqrt()

    torch.optim.SGD([quantizer.min, quantizer.max], lr=0.1).step()
    torch.testing.assert_close(quantizer.get_scale(), expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(quantizer.get_offset(), offset)


def test_learning_the_scale_leaves_the_values_as_they_are():
    x = torch.linspace(-2, 2, 101)
    for symmetric in (True, False):
        quantizer = QuantizeDequantize((), 8, symmetric)
        quantizer.set_range(-0.7, 1.1)
        before, encoding = quantizer(x), quantizer.get_encodings()
        quantizer.learn("scale")
        torch.testing.assert_close(quantizer(x), before, rtol=1e-6, atol=0)
        quantizer.learn("min_max")
        assert "fixed_offset" not in quantizer.state_dict()
        assert quantizer.get_encodings()["offset"] == encoding["offset"]
        assert quantizer.get_encodings()["scale"] == pytest.approx(encoding["scale"])


def test_a_new_bitwidth_while_scales_are_learnt_keeps_the_range():
    quantizer = QuantizeDequantize((), 8, symmetric=False)
    quantizer.set_range(-0.7, 1.1)
    quantizer.learn("scale")
    quantizer.bitwidth = 4  # no statistics: the grid follows, the range stays
    assert quantizer.get_scale().item() == pytest.approx(1.8 / 15)
    assert quantizer.get_offset().item() == -6  # -0.7 / 0.12 = -5.83
    quantizer.set_range(-1.0, 2.0)
    assert quantizer.get_offset().item() == -5


def test_unknown_learning_is_an_error():
    with pytest.raises(ValueError, match=r"learn: one of .*'scale'.*, None.*'lsq'"):
        QuantizeDequantize((), 8, True).learn("lsq")
