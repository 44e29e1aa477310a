# SPDX-License-Identifier: BSD-3-Clause
"""The ops fake_quantize, quantize, dequantize: values, gradients, bad arguments."""

import numpy as np
import pytest
import reference
import torch

from aimetpp import ops

MODES = ["fake_quantize", "quantize", "dequantize"]
BITWIDTHS = [2, 3, 4, 7, 8, 16, 21, 22, 24, 31, 32]


def make_range(channels=None, dtype=torch.float32):
    """A learnable range around zero: one, or one per channel."""
    spread = torch.linspace(1.0, 2.0, 1 if channels is None else channels).to(dtype)
    low, high = -0.8 * spread, 1.1 * spread.flip(0)
    if channels is None:
        low, high = low.reshape(()), high.reshape(())
    return low.requires_grad_(), high.requires_grad_()


def make_x(shape=(3, 5, 4, 6), dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x.to(dtype).requires_grad_()


def arrays(*tensors):
    return [t.detach().numpy() for t in tensors]


def assert_same_bits(a, b):
    """Equal to the last bit, the sign of a zero included; a NaN is any NaN."""
    assert a.dtype == b.dtype and a.shape == b.shape
    if a.dtype == torch.bfloat16:
        a, b = a.float(), b.float()  # exact
    a, b = np.asarray(a.detach()), np.asarray(b.detach())
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.signbit(a[a == a]), np.signbit(b[b == b]))


def fake_quantize_8bit(x, low=-1.0, high=1.5, symmetric=False):
    grid = ops.integer_grid(8, symmetric)
    return ops.fake_quantize(x, torch.tensor(low), torch.tensor(high), grid, symmetric)


class TestValues:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("bitwidth", BITWIDTHS)
    def test_bit_exact(self, mode, dtype, bitwidth, symmetric):
        grid = ops.integer_grid(bitwidth, symmetric)
        x = make_x(dtype=dtype).detach()
        if mode == "dequantize":
            x = (x * 2.0 ** min(bitwidth - 2, 10)).round()
        for axis in (None, 0, 1, -1):
            low, high = make_range(None if axis is None else x.size(axis))
            got = getattr(ops, mode)(x, low, high, grid, symmetric, axis)
            with np.errstate(over="ignore"):  # float16 ends at 65504
                expected = reference.transform(
                    mode, *arrays(x, low, high), *grid.tolist(), symmetric, axis
                )
            assert_same_bits(got, torch.from_numpy(expected))

    def test_agrees_with_torch_on_its_grids(self):
        x = make_x((1000,)).detach()
        scale, zero_point = 2.5 / 255, 102  # of the range [-1, 1.5]
        expected = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 255)
        torch.testing.assert_close(
            fake_quantize_8bit(x), expected, rtol=0, atol=1.5 * scale
        )
        # Theirs multiplies by 1 / scale: only elements at a tie may differ.
        assert (fake_quantize_8bit(x) - expected).abs().gt(1e-6).sum() <= 2

    def test_range_in_float64(self):
        x = make_x(dtype=torch.float64).detach()
        low, high = make_range(5, torch.float64)
        got = ops.fake_quantize(x, low, high, ops.integer_grid(8, True), True, 1)
        expected = reference.transform(
            "fake_quantize", *arrays(x, low, high), -128, 127, True, 1
        )
        assert_same_bits(got, torch.from_numpy(expected))

    def test_half_to_even(self):
        x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5])
        got = fake_quantize_8bit(x, -128.0, 127.0, symmetric=True)
        assert got.tolist() == [0.0, 2.0, 2.0, 0.0, -2.0]

    def test_infinity_saturates_and_nan_stays(self):
        got = fake_quantize_8bit(torch.tensor([torch.inf, -torch.inf, torch.nan]))
        assert got[0] == 1.5 and got[1] == -1.0 and got[2].isnan()

    @pytest.mark.parametrize("symmetric", [True, False])
    def test_empty_range_uses_the_smallest_scale(self, symmetric):
        x = torch.tensor([0.0, 1e-6, 1.0])
        got = ops.quantize(
            x,
            torch.tensor(0.0),
            torch.tensor(0.0),
            ops.integer_grid(8, symmetric),
            symmetric,
        )
        # 1e-6 / 2**-23 = 8.39
        assert got.tolist() == [0.0, 8.0, 127.0 if symmetric else 255.0]

    def test_range_is_one_element_of_any_shape(self):
        x = make_x().detach()
        grid = ops.integer_grid(8, False)
        got = ops.fake_quantize(
            x, torch.full((1, 1, 1), -1.0), torch.full((1,), 1.5), grid, False
        )
        assert_same_bits(got, fake_quantize_8bit(x))

    def test_bitwidth_changes_in_place(self):
        x = make_x().detach()
        low, high = make_range()
        grid = ops.integer_grid(8, False)
        wide = ops.fake_quantize(x, low, high, grid, False)
        grid.copy_(ops.integer_grid(4, False))
        narrow = ops.fake_quantize(x, low, high, grid, False)
        assert narrow.unique().numel() == 16 < wide.unique().numel()


class TestStorage:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("scale", [1.0, 0.37, 3e-5, 1e4])
    def test_every_pattern_is_read_and_rounded_as_torch_does(self, dtype, scale):
        # Symmetric 8-bit over [-128, 127] * scale: dequantize is x * scale.
        x = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
        low, high = torch.tensor(-128.0) * scale, torch.tensor(127.0) * scale
        grid = ops.integer_grid(8, True)
        got = ops.dequantize(x, low, high, grid, True)
        float_scale = (high - low) / 255
        assert_same_bits(got, ((x.float() + 0.0) * float_scale).to(dtype))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("bitwidth", [4, 8, 16, 24])
    @pytest.mark.parametrize("mode", MODES)
    def test_computes_in_float32_and_rounds_once(self, dtype, bitwidth, mode):
        x = make_x(dtype=dtype).detach()
        low, high = make_range(5)
        grid = ops.integer_grid(bitwidth, False)
        op = getattr(ops, mode)
        got = op(x, low, high, grid, False, 1)
        if bitwidth < 22:
            expected = op(x.float(), low, high, grid, False, 1)
        else:  # double until the end
            expected = op(x.double(), low, high, grid, False, 1).float()
        assert_same_bits(got, expected.to(dtype))


class TestMemory:
    @pytest.mark.parametrize("axis", [None, 0, 1, 2, 3])
    @pytest.mark.parametrize(
        "arrange",
        [
            lambda x: x.contiguous(memory_format=torch.channels_last),
            lambda x: x.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2),
            lambda x: x[..., ::2],
            lambda x: x[:, :1].expand(-1, 7, -1, -1),
            lambda x: x.contiguous()[1:],
        ],
        ids=["channels_last", "permuted", "strided", "expanded", "offset"],
    )
    def test_any_strides(self, arrange, axis):
        x = arrange(make_x().detach())
        low, high = make_range(None if axis is None else x.size(axis))
        grid = ops.integer_grid(4, False)
        got = ops.fake_quantize(x, low, high, grid, False, axis)
        assert_same_bits(
            got, ops.fake_quantize(x.contiguous(), low, high, grid, False, axis)
        )
        assert got.stride() == torch.empty_like(x).stride()
        upstream = torch.randn(x.shape)
        backward = torch.ops.aimetpp.fake_quantize_backward
        gradients = backward(upstream, x, low, high, grid, False, axis)
        expected = backward(upstream, x.contiguous(), low, high, grid, False, axis)
        assert_same_bits(gradients[0], expected[0])
        assert gradients[0].stride() == torch.empty_like(x).stride()
        for a, b in zip(gradients[1:], expected[1:], strict=True):
            torch.testing.assert_close(a, b)

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize(
        "shape,axis", [((), None), ((0,), None), ((0, 3), 1), ((2, 0), 1), ((1,), 0)]
    )
    def test_scalars_and_empty_tensors(self, mode, shape, axis):
        x = torch.full(shape, 0.3, requires_grad=True)
        low, high = make_range(None if axis is None else x.size(axis))
        y = getattr(ops, mode)(x, low, high, ops.integer_grid(8, False), False, axis)
        assert y.shape == x.shape
        y.sum().backward()
        assert x.grad.shape == x.shape
        assert low.grad.shape == low.shape and high.grad.shape == high.shape
        if x.numel() == 0:
            assert not low.grad.any() and not high.grad.any()

    def test_result_is_a_new_tensor(self):
        x = make_x().detach()
        before = x.clone()
        assert fake_quantize_8bit(x).data_ptr() != x.data_ptr()
        assert_same_bits(x, before)


class TestGradients:
    def test_hand_computed(self):
        x = torch.tensor([-2, -1, -0.3, 0.1, 0.7, 1.5, 2], requires_grad=True)
        low = torch.tensor(-1.0, requires_grad=True)
        high = torch.tensor(1.5, requires_grad=True)
        ops.fake_quantize(
            x, low, high, ops.integer_grid(8, False), False
        ).sum().backward()
        assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]
        assert low.grad.item() == pytest.approx(1.00392, abs=1e-5)
        assert high.grad.item() == pytest.approx(0.99608, abs=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("bitwidth", [2, 4, 8, 16, 24, 32])
    def test_closed_forms(self, dtype, bitwidth, symmetric):
        grid = ops.integer_grid(bitwidth, symmetric)
        for axis in (None, 0, 1, -1):
            x = make_x(dtype=dtype)
            low, high = make_range(None if axis is None else x.size(axis))
            upstream = torch.randn(x.shape, dtype=dtype)
            y = ops.fake_quantize(x, low, high, grid, symmetric, axis)
            y.backward(upstream)
            expected = reference.fake_quantize_gradients(
                *arrays(upstream, x, low, high), *grid.tolist(), symmetric, axis
            )
            np.testing.assert_array_equal(x.grad, expected.x)
            np.testing.assert_allclose(low.grad, expected.min, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(high.grad, expected.max, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("ends", [(0.5, 2.0), (-2.0, -0.5)])
    def test_clamped_offset_is_a_constant(self, ends):
        x = make_x()
        low, high = (torch.tensor(end, requires_grad=True) for end in ends)
        ops.fake_quantize(
            x, low, high, ops.integer_grid(4, False), False
        ).sum().backward()
        expected = reference.fake_quantize_gradients(
            np.ones(x.shape, np.float32), *arrays(x, low, high), 0, 15, False
        )
        assert low.grad.item() == pytest.approx(float(expected.min), rel=1e-5)
        assert low.grad.item() == pytest.approx(-high.grad.item(), rel=1e-5)

    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("axis", [None, 0, 1])
    def test_dequantize_of_quantize_has_the_same(self, symmetric, axis):
        grid = ops.integer_grid(4, symmetric)
        upstream = torch.randn(3, 5, 4, 6)
        results = []
        for split in (False, True):
            x = make_x()
            ends = make_range(None if axis is None else x.size(axis))
            if split:
                q = ops.quantize(x, *ends, grid, symmetric, axis)
                y = ops.dequantize(q, *ends, grid, symmetric, axis)
            else:
                y = ops.fake_quantize(x, *ends, grid, symmetric, axis)
            y.backward(upstream)
            results.append((y, x.grad, *(end.grad for end in ends)))
        assert_same_bits(results[0][0], results[1][0])
        for whole, parts in zip(results[0][1:], results[1][1:], strict=True):
            torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)

    def test_nan_is_masked_in_x_and_shows_in_the_range(self):
        x = torch.tensor([torch.nan, 0.2], requires_grad=True)
        low, high = make_range()
        ops.fake_quantize(
            x, low, high, ops.integer_grid(8, False), False
        ).sum().backward()
        assert x.grad.tolist() == [0.0, 1.0]
        assert low.grad.isnan() and high.grad.isnan()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_sixteen_bit_floats(self, dtype):
        x = make_x(dtype=dtype)
        wide = x.detach().float().requires_grad_()
        grid = ops.integer_grid(8, False)
        gradients = []
        for tensor in (x, wide):
            low, high = make_range(5)
            ops.fake_quantize(tensor, low, high, grid, False, 1).sum().backward()
            gradients.append((low.grad, high.grad))
        assert x.grad.dtype == dtype
        assert_same_bits(x.grad.float(), wide.grad)
        for a, b in zip(*gradients, strict=True):
            assert_same_bits(a, b)

    @pytest.mark.parametrize(
        "shape,axis",
        [((300_001,), None), ((64, 3000), 0), ((3000, 64), 1), ((16, 8, 40, 40), 1)],
    )
    def test_do_not_depend_on_the_number_of_threads(self, shape, axis):
        x = make_x(shape)
        upstream = torch.randn(shape)
        low, high = make_range(None if axis is None else x.size(axis))
        grid = ops.integer_grid(4, False)
        threads = torch.get_num_threads()
        results = []
        try:
            for count in (1, 2, 3, 7):
                torch.set_num_threads(count)
                results.append(
                    torch.ops.aimetpp.fake_quantize_backward(
                        upstream, x, low, high, grid, False, axis
                    )
                )
        finally:
            torch.set_num_threads(threads)
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert_same_bits(a, b)

    def test_only_what_requires_grad_gets_one(self):
        x = make_x()
        y = fake_quantize_8bit(x)
        y.sum().backward()
        assert x.grad is not None
        with torch.no_grad():
            assert not fake_quantize_8bit(x).requires_grad

    @pytest.mark.parametrize("learned", [True, False])
    def test_second_derivative_is_refused(self, learned):
        x, low, high = make_x(), torch.tensor(-1.0), torch.tensor(1.5)
        low.requires_grad_(learned)
        y = ops.fake_quantize(x, low, high, ops.integer_grid(8, False), False)
        wanted = (x, low) if learned else x
        first, *_ = torch.autograd.grad(y.sum(), wanted, create_graph=True)
        op = "backward" if learned else "input_gradient"
        with pytest.raises(RuntimeError, match=f"fake_quantize_{op}"):
            first.sum().backward()

    @pytest.mark.parametrize("axis", [None, 0, 1, -1])
    @pytest.mark.parametrize(
        "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16]
    )
    @pytest.mark.parametrize("bitwidth", [4, 24])
    def test_frozen_range_gives_the_same_gradient(self, dtype, axis, bitwidth):
        low, high = make_range(None if axis is None else (3, 5, 6)[axis])
        grid = ops.integer_grid(bitwidth, False)
        upstream = make_x((3, 5, 6), dtype, seed=1).detach()
        gradients = []
        for frozen in (False, True):
            x = make_x((3, 5, 6), dtype)
            ends = (low.detach(), high.detach()) if frozen else (low, high)
            y = ops.fake_quantize(x, *ends, grid, False, axis)
            assert len(y.grad_fn.next_functions) >= 3
            y.backward(upstream)
            gradients.append(x.grad)
        assert_same_bits(*gradients)
        assert (gradients[0] == 0).any() and (gradients[0] != 0).any()

    def test_forward_mode_is_refused(self):
        with torch.autograd.forward_ad.dual_level():
            x = torch.autograd.forward_ad.make_dual(torch.ones(3), torch.ones(3))
            with pytest.raises(RuntimeError, match="jvp"):
                fake_quantize_8bit(x)
