# SPDX-License-Identifier: BSD-3-Clause
"""The ops on tensors however they lie in memory: the bits of a contiguous copy, and
no copy of the whole tensor beside the result.
"""

import pytest
import torch

from aimetpp import ops


def make(name, dtype=torch.float32, large=False):
    """A tensor of 4 dimensions, [2, 6, 5, 4] or larger, that lies as the name says."""
    generator = torch.Generator().manual_seed(0)
    n, c, h, w = (3, 10, 70, 90) if large else (2, 6, 5, 4)

    def randn(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    return {
        "contiguous": lambda: randn(n, c, h, w),
        "channels_last": lambda: randn(n, c, h, w).contiguous(
            memory_format=torch.channels_last
        ),
        "transposed": lambda: randn(n, c, w, h).transpose(2, 3),
        "sliced": lambda: randn(n, 2 * c, h, w + 3)[:, ::2, :, 1:-2],
        "chunk": lambda: randn(n, c, h, 3 * w).chunk(3, -1)[1],
        "sliced_and_transposed": lambda: randn(w, n, h + 1, c).permute(1, 3, 2, 0)[
            :, :, 1:
        ],
        "expanded": lambda: randn(n, c, 1, w).expand(n, c, h, w),
        "expanded_channels": lambda: randn(n, 1, h, w).expand(n, c, h, w),
        "all_expanded": lambda: randn(1).expand(n, c, h, w),
        "overlapping": lambda: randn(5000 + n * c * h * w).as_strided(
            (n, c, h, w), (7, 5, 3, 2)
        ),
        "empty": lambda: randn(n, c, 0, w),
        "empty_sliced": lambda: randn(n, c, h, w)[:, :, 4:4, ::2],
    }[name]()


NAMES = (
    *("contiguous", "channels_last", "transposed", "sliced", "chunk"),
    *("sliced_and_transposed", "expanded", "expanded_channels", "all_expanded"),
    *("overlapping", "empty", "empty_sliced"),
)


def ranges(x, axis):
    count = 1 if axis is None else x.size(axis)
    return -torch.linspace(0.5, 1, count), torch.linspace(1, 2, count)


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(a.signbit(), b.signbit())


@pytest.mark.parametrize("axis", [None, 0, 1, 3])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("name", NAMES)
class TestBits:
    def test_forward(self, name, large, axis):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            x = make(name, dtype, large)
            low, high = ranges(x, axis)
            grid = ops.integer_grid(4, False)
            for op in (ops.fake_quantize, ops.quantize, ops.dequantize):
                got = op(x, low, high, grid, False, axis)
                assert_same(got, op(x.contiguous(), low, high, grid, False, axis))
                assert got.stride() == torch.empty_like(x).stride()

    def test_in_place(self, name, large, axis):
        x = make(name, large=large)
        low, high = ranges(x, axis)
        arguments = (low, high, ops.integer_grid(4, False), False, axis)
        expected = ops.fake_quantize(x.contiguous(), *arguments)
        if name == "overlapping":
            return  # torch, too, finds no fault with writing into such a one
        if "expanded" in name:
            with pytest.raises(RuntimeError, match="single memory location"):
                ops.fake_quantize_(x, *arguments)
        else:
            assert_same(ops.fake_quantize_(x, *arguments), expected)

    @pytest.mark.parametrize("learned", [False, True])
    def test_gradients(self, name, large, axis, learned):
        x = make(name, large=large)
        low, high = (end.requires_grad_(learned) for end in ranges(x, axis))
        grid = ops.integer_grid(4, False)
        upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        gradients = []
        for given in (x, x.contiguous()):
            for grad in (upstream, upstream.transpose(2, 3).contiguous().mT):
                given = given.detach().requires_grad_()
                y = ops.fake_quantize(given, low, high, grid, False, axis)
                wanted = (given, low, high) if learned else (given,)
                gradients.append(torch.autograd.grad(y, wanted, grad))
        for other in gradients[1:]:
            assert_same(gradients[0][0], other[0])
            # Sums are in the order of memory.
            torch.testing.assert_close(
                gradients[0][1:], other[1:], rtol=1e-5, atol=1e-4
            )

    def test_float_formats(self, name, large, axis):
        x = make(name, large=large).requires_grad_()
        scale = ranges(x, axis)[1] / 448
        got = ops.float_quantize(x, 4, 3, True, scale, axis)
        dense = x.detach().contiguous().requires_grad_()
        expected = ops.float_quantize(dense, 4, 3, True, scale, axis)
        assert_same(got, expected)
        upstream = torch.ones_like(expected)
        (a,) = torch.autograd.grad(got, x, upstream)
        (b,) = torch.autograd.grad(expected, dense, upstream)
        assert_same(a, b)

    def test_several_grids(self, name, large, axis):
        x = make(name, large=large)
        low, high = ranges(x, axis)
        grids = [ops.integer_grid(bits, bits > 4) for bits in (2, 4, 8)]
        symmetric = [False, False, True]
        ends = ([low * k for k in (1, 2, 3)], [high * k for k in (1, 2, 3)])
        several = ops.fake_quantize_many(x, *ends, grids, symmetric, axis)
        assert len(several) == 3
        for got, one, other, grid, sign in zip(
            several, *ends, grids, symmetric, strict=True
        ):
            assert_same(got, ops.fake_quantize(x, one, other, grid, sign, axis))


class TestSeveralGrids:
    def test_errors(self):
        x, end, grid = torch.ones(3), torch.ones(1), ops.integer_grid(8, False)
        with pytest.raises(ValueError, match="must be of one length, got 1, 2, 1 and"):
            ops.fake_quantize_many(x, [-end], [end, end], [grid], [False])
        with pytest.raises(ValueError, match="max must have 1 element"):
            ops.fake_quantize_many(x, [-end], [x], [grid], [False])
        y, *_ = ops.fake_quantize_many(
            x.requires_grad_(), [-end], [end], [grid], [False]
        )
        with pytest.raises(RuntimeError, match="fake_quantize_many"):
            y.sum().backward()
        assert ops.fake_quantize_many(x, [], [], [], []) == []

    @pytest.mark.parametrize("axis", [None, 1])
    def test_opcheck(self, axis):
        x = make("sliced")
        low, high = ranges(x, axis)
        grids = [ops.integer_grid(bits, False) for bits in (4, 8)]
        torch.library.opcheck(
            torch.ops.aimetpp.fake_quantize_many.default,
            (x, [low, low], [high, high], grids, [False, False], axis),
        )


def allocated(run):
    """Bytes that a call takes from PyTorch's allocator, given back or not."""
    with torch.profiler.profile(profile_memory=True) as profiler:
        run()
    return sum(max(0, e.self_cpu_memory_usage) for e in profiler.key_averages())


@pytest.mark.parametrize("name", ["sliced", "expanded", "chunk", "overlapping"])
def test_forward_allocates_its_result_alone(name):
    x = make(name, large=True)
    low, high = ranges(x, None)
    grid = ops.integer_grid(8, False)
    size = x.numel() * x.element_size()
    taken = allocated(lambda: ops.fake_quantize(x, low, high, grid, False))
    assert size <= taken < 1.1 * size


@pytest.mark.parametrize("name", ["sliced", "chunk"])
def test_in_place_needs_a_part_of_the_memory(name):
    x = make(name, large=True)
    low, high = ranges(x, None)
    grid = ops.integer_grid(8, False)
    taken = allocated(lambda: ops.fake_quantize_(x, low, high, grid, False))
    assert taken < 0.5 * x.numel() * x.element_size()
