# SPDX-License-Identifier: BSD-3-Clause
"""Ranges that follow a moving average of the data."""

import pytest
import torch
from torch import nn
from torch.library import opcheck

from aimetpp import ops
from aimetpp.quantization import QuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel


def arguments(dtype=torch.float32, requires_grad=True):
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)).to(dtype)
    grid = ops.integer_grid(4, False)
    return x.requires_grad_(requires_grad), torch.tensor(-1.0), torch.tensor(1.5), grid


class TestOp:
    @pytest.mark.parametrize("strided", [False, True])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_is_fake_quantize_and_the_extremes(self, dtype, strided):
        x, *rest = arguments(dtype)
        x = x.detach()[:, ::2] if strided else x.detach()
        x[1, 3], x[2, 0] = torch.inf, -torch.inf
        y, least, largest = ops.fake_quantize_observed(x, *rest, False)
        assert torch.equal(y, ops.fake_quantize(x, *rest, False))
        finite = x[x.isfinite()].float()
        assert least.item() == finite.min() and largest.item() == finite.max()
        assert least.dtype == largest.dtype == torch.float32

    def test_gradient_is_that_of_a_fixed_range(self):
        x, *rest = arguments()
        y, least, largest = ops.fake_quantize_observed(x, *rest, False)
        assert not least.requires_grad and not largest.requires_grad
        upstream = torch.randn_like(x)
        (got,) = torch.autograd.grad(y, x, upstream)
        expected = ops.fake_quantize(x, *rest, False)
        assert torch.equal(got, torch.autograd.grad(expected, x, upstream)[0])

    def test_errors(self):
        x, low, high, grid = arguments()
        with pytest.raises(ValueError, match="min and max have no gradient"):
            ops.fake_quantize_observed(x, low.requires_grad_(), high, grid, False)
        with pytest.raises(ValueError, match="min must have 1 element"):
            ops.fake_quantize_observed(x, torch.zeros(3), torch.ones(3), grid, False)

    @pytest.mark.parametrize("requires_grad", [False, True])
    def test_opcheck(self, requires_grad):
        op = torch.ops.aimetpp.fake_quantize_observed.default
        opcheck(op, (*arguments(requires_grad=requires_grad), False))


def quantizer(symmetric=False, **options):
    made = QuantizeDequantize((), 4, symmetric, **options)
    made.set_range(-1.0, 1.0)
    return made


class TestQuantizer:
    def test_ends_by_hand(self):
        made = quantizer()
        made.learn("moving_average", momentum=0.25)
        x = torch.tensor([-3.0, 0.5, 2.0, torch.inf])
        # Quantized with the range from before: [-1, 1].
        y = made(x)
        made.eval()
        assert (made.min.item(), made.max.item()) == (-1.5, 1.25)
        before = quantizer()(x)
        assert torch.equal(y, before) and not torch.equal(y, made(x))
        assert (made.min.item(), made.max.item()) == (-1.5, 1.25)  # eval: stays

    def test_zero_stays_in_the_range_and_nothing_changes_nothing(self):
        made = quantizer()
        made.learn("moving_average", momentum=0.5)
        made(torch.tensor([2.0, 4.0]))
        assert (made.min.item(), made.max.item()) == (-0.5, 2.5)
        made(torch.tensor([torch.inf]))
        made(torch.empty(0))
        assert (made.min.item(), made.max.item()) == (-0.5, 2.5)

    def test_symmetric_ranges_stay_symmetric(self):
        made = quantizer(symmetric=True)
        made.set_range(-8.0, 7.0)
        made.learn("moving_average", momentum=0.5)
        made(torch.tensor([-16.0, 3.0]))  # a step of 2: [-16, 14]
        assert (made.min.item(), made.max.item()) == (-12.0, 10.5)
        made(torch.tensor([-1.0, 21.0]))  # a step of 3: [-24, 21]
        assert (made.min.item(), made.max.item()) == (-18.0, 15.75)

    def test_fixed_ends_and_frozen_ranges_stay(self):
        made = quantizer()
        made.fixed_min = -1.0
        made.learn("moving_average", momentum=0.5)
        made(torch.tensor([-3.0, 3.0]))
        assert (made.min.item(), made.max.item()) == (-1.0, 2.0)
        made.allow_overwrite(False)
        made(torch.tensor([-3.0, 30.0]))
        assert (made.min.item(), made.max.item()) == (-1.0, 2.0)

    def test_masked_values_do_not_count(self):
        made = quantizer()
        made.masked_below = -100.0
        made.learn("moving_average", momentum=0.5)
        x = torch.tensor([-1e4, -3.0, 1.0], requires_grad=True)
        y = made(x)
        assert made.min.item() == -2.0 and y[0].item() == -1e4
        y.sum().backward()
        assert x.grad.tolist() == [1.0, 0.0, 1.0]

    def test_needs_one_range(self):
        made = QuantizeDequantize((3, 1), 8, True)
        with pytest.raises(ValueError, match="one range for the whole tensor"):
            made.learn("moving_average")
        with pytest.raises(ValueError, match="momentum must be above 0"):
            quantizer().learn("moving_average", momentum=0.0)


class TestTraining:
    def make(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
        x = torch.randn(16, 4)
        sim = QuantizationSimModel(model, x)
        sim.compute_encodings(lambda m: m(x))
        return sim, x

    def test_follows_batches_and_trains_weights(self):
        sim, x = self.make()
        sim.learn_ranges(activations="moving_average", params=None, momentum=0.5)
        assert not list(sim.quantizer_parameters())
        sim.model.train()
        quantizer = sim.model[0].input_quantizers[0]
        start = quantizer.min.item(), quantizer.max.item()
        sim.model(3 * x).square().sum().backward()
        assert quantizer.max.item() == pytest.approx(
            (start[1] + 3 * x.max().item()) / 2
        )
        assert all(p.grad is not None for p in sim.model_parameters())
        # And back: what was a moving average is learnt, and is not taken for frozen.
        sim.learn_ranges()
        assert quantizer.min.requires_grad
        before = quantizer.max.item()
        sim.model(x)
        assert quantizer.max.item() == before

    def test_errors_change_nothing(self):
        sim, _ = self.make()
        with pytest.raises(ValueError, match="a moving average is of data"):
            sim.learn_ranges(params="moving_average")
        with pytest.raises(ValueError, match="momentum must be above 0"):
            sim.learn_ranges(activations="moving_average", momentum=2.0)
        sim.model[1].output_quantizers[0] = QuantizeDequantize((1, 6), 8, False)
        with pytest.raises(ValueError, match="ranges are of shape"):
            sim.learn_ranges(activations="moving_average")
        assert sim.model[0].input_quantizers[0].learns == "min_max"

    def test_compiles(self):
        made = quantizer()
        made.learn("moving_average", momentum=0.5)
        compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
        x = torch.tensor([-3.0, 0.5, 2.0])
        assert torch.equal(compiled(x), quantizer()(x))
        assert (made.min.item(), made.max.item()) == (-2.0, 1.5)
