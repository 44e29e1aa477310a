# SPDX-License-Identifier: BSD-3-Clause
"""The ops on tensors however they lie in memory: the bits of a contiguous copy, and
no copy of the whole tensor beside the result.
"""

import pytest
import torch

from aimetpp import _C, ops


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

    def test_sums(self, name, large, axis):
        """To the last bit those of a dense tensor in the order of the result."""
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            x = make(name, dtype, large)
            dense = torch.empty_like(x).copy_(x)
            arguments = (*ranges(x, axis), ops.integer_grid(4, False), False, axis)
            upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
            grad = upstream.to(dtype).transpose(2, 3).contiguous().mT
            laid_out = torch.empty_like(dense).copy_(grad)
            for op in ("fake_quantize", "quantize", "dequantize"):
                backward = getattr(torch.ops.aimetpp, f"{op}_backward")
                expected = backward(laid_out, dense, *arguments)
                for given in (grad, laid_out):
                    got = backward(given, x, *arguments)
                    for a, b in zip(got, expected, strict=True):
                        assert_same(a, b)
                    assert got[0].stride() == dense.stride()

    def test_gradient_in_place(self, name, large, axis):
        x = make(name, large=large)
        arguments = (*ranges(x, axis), ops.integer_grid(4, False), False, axis)
        upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        learned = torch.ops.aimetpp.fake_quantize_backward_
        frozen = torch.ops.aimetpp.fake_quantize_input_gradient_
        laid_out = torch.empty_like(x).copy_(upstream)
        expected = torch.ops.aimetpp.fake_quantize_backward(laid_out, x, *arguments)
        room = torch.zeros(*x.shape[:-1], 2 * x.size(3))
        for make_grad in (
            lambda: upstream.clone(),
            lambda: laid_out.clone(),
            lambda: room[..., ::2].copy_(upstream),
        ):
            grad = make_grad()
            for a, b in zip(learned(grad, x, *arguments), expected[1:], strict=True):
                assert_same(a, b)
            assert_same(grad, expected[0])
            grad = make_grad()
            frozen(grad, x, *arguments)
            assert_same(grad, expected[0])

    def test_observed(self, name, large, axis):
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            x = make(name, dtype, large)
            arguments = (*ranges(x, None), ops.integer_grid(4, False), False)
            got = ops.fake_quantize_observed(x, *arguments)
            expected = ops.fake_quantize_observed(x.contiguous(), *arguments)
            for a, b in zip(got, expected, strict=True):
                assert_same(a, b)
            assert got[0].stride() == torch.empty_like(x).stride()

    @pytest.mark.parametrize("scheme", ["min_max", "tf_enhanced", "percentile"])
    def test_statistics(self, name, large, axis, scheme):
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            x = make(name, dtype, large)
            count = 1 if axis is None else x.size(axis)
            got, expected = (_C.Statistics.for_scheme(count, scheme) for _ in "ab")
            for statistics in (got, expected):
                statistics.update((x / 8).float(), axis)
            for value in (x, x):  # the first extends the histograms
                got.update(value, axis)
                expected.update(value.float().contiguous(), axis)
            assert got == expected

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


STRIDED = ["sliced", "expanded", "chunk", "overlapping"]


@pytest.mark.parametrize("name", STRIDED)
def test_forward_allocates_its_result_alone(name):
    x = make(name, large=True)
    low, high = ranges(x, None)
    arguments = (low, high, ops.integer_grid(8, False), False)
    size = x.numel() * x.element_size()
    for run in (
        lambda: ops.fake_quantize(x, *arguments),
        lambda: ops.fake_quantize_observed(x, *arguments),
        lambda: ops.float_quantize(x, 4, 3, True),
    ):
        assert size <= allocated(run) < 1.1 * size


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("name", STRIDED)
def test_backward_allocates_its_result_alone(name, axis):
    x = make(name, large=True)
    grad = torch.ones(x.shape).transpose(2, 3).contiguous().mT
    arguments = (*ranges(x, axis), ops.integer_grid(8, False), False, axis)
    size = x.numel() * x.element_size()
    taken = allocated(
        lambda: torch.ops.aimetpp.fake_quantize_backward(grad, x, *arguments)
    )
    assert size <= taken < 1.1 * size
    # Two slabs of 64K elements beside it, one of x and, in place, one of grad.
    slabs = 2 * 65536 * x.element_size()
    for run in (
        lambda: torch.ops.aimetpp.fake_quantize_input_gradient(grad, x, *arguments),
        lambda: torch.ops.aimetpp.float_quantize_backward(grad, x, 4, 3, True),
    ):
        assert size <= allocated(run) < size + slabs


@pytest.mark.parametrize("name", ["sliced", "chunk"])
def test_in_place_needs_a_part_of_the_memory(name):
    x = torch.cat([make(name, large=True)] * 4).transpose(0, 1)[:, ::2]
    low, high = ranges(x, None)
    arguments = (low, high, ops.integer_grid(8, False), False)
    grad = torch.ones(*x.shape, 2)[..., 0]
    for run in (
        lambda: ops.fake_quantize_(x, *arguments),
        lambda: torch.ops.aimetpp.fake_quantize_backward_(grad, x, *arguments),
        lambda: torch.ops.aimetpp.fake_quantize_input_gradient_(grad, x, *arguments),
    ):
        assert allocated(run) < 2.1 * 65536 * x.element_size()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_calibration_needs_a_part_of_the_memory(dtype):
    x = make("sliced", dtype, large=True).repeat(8, 1, 1, 1).transpose(2, 3)[..., ::2]
    statistics = _C.Statistics.for_scheme(1, "tf_enhanced")
    assert allocated(lambda: statistics.update(x)) <= (
        65536 * 4 * torch.get_num_threads()
    )
    ends = _C.ranges_from_statistics(statistics, "min_max", 32, "asymmetric", 100)
    assert ends[0].item() == pytest.approx(x.min().item())
    assert ends[1].item() == pytest.approx(x.max().item())
