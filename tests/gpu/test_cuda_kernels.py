# SPDX-License-Identifier: BSD-3-Clause
"""Every op on the GPU beside the same op on the CPU: to the last bit, but for sums."""

import pytest
import torch
from test_layouts import NAMES, STRIDED, make, ranges

from aimetpp import ops

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
GRIDS = [(2, False), (4, True), (8, False), (8, True), (16, True), (31, False)]
FORMATS = [(5, 10), (8, 7), (5, 2), (4, 3), (3, 2), (2, 3), (2, 1)]
backend = torch.ops.aimetpp


def on_gpu(x):
    """The same values in the same strides."""
    room = torch.empty(0, dtype=x.dtype, device="cuda")
    storage = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
    room.set_(storage.cuda().untyped_storage(), x.storage_offset(), x.shape, x.stride())
    return room


def same(gpu, cpu):
    """Equal to the last bit; a NaN is one whatever its payload."""
    gpu = gpu.cpu()
    assert gpu.dtype == cpu.dtype and gpu.stride() == cpu.stride()
    torch.testing.assert_close(gpu, cpu, rtol=0, atol=0, equal_nan=True)
    known = ~cpu.isnan()
    assert torch.equal(gpu.signbit()[known], cpu.signbit()[known])


def odd_values(dtype):
    """Values on, between and beyond all grids, ties, and what is special."""
    generator = torch.Generator().manual_seed(2)
    spread = torch.randn(5000, generator=generator) * 2 ** torch.linspace(-30, 20, 5000)
    ties = torch.arange(-600, 600) / 512
    special = [0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-42, -1e-42, 6e4, 7e4]
    return torch.cat([spread, ties, torch.tensor(special)]).to(dtype)


def arguments(x, axis, bits, symmetric):
    low, high = ranges(x, axis)
    return low, high, ops.integer_grid(bits, symmetric), symmetric, axis


def moved(values):
    return [v.cuda() if isinstance(v, torch.Tensor) else v for v in values]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("bits", "symmetric"), GRIDS)
@pytest.mark.parametrize("op", ["fake_quantize", "quantize", "dequantize"])
class TestIntegers:
    def test_values(self, op, bits, symmetric, dtype):
        for count in (6209, 6208):  # by elements, and in packs
            x = odd_values(dtype)[:count]
            given = arguments(x, None, bits, symmetric)
            run = getattr(backend, op)
            same(run(x.cuda(), *moved(given)), run(x, *given))

    @pytest.mark.parametrize("axis", [None, 0, 1, 3])
    def test_layouts(self, op, bits, symmetric, dtype, axis):
        for name in NAMES:
            x = make(name, dtype)
            given = arguments(x, axis, bits, symmetric)
            run = getattr(backend, op)
            same(run(on_gpu(x), *moved(given)), run(x, *given))

    @pytest.mark.parametrize("axis", [None, 0, 1, 3])
    def test_gradients(self, op, bits, symmetric, dtype, axis):
        for name in NAMES:
            x = make(name, dtype)
            given = arguments(x, axis, bits, symmetric)
            generator = torch.Generator().manual_seed(1)
            grad = torch.randn(x.shape, generator=generator).to(dtype).mT.clone().mT
            run = getattr(backend, f"{op}_backward")
            on_device = on_gpu(grad), on_gpu(x), *moved(given)
            first, again, expected = (
                run(*on_device),
                run(*on_device),
                run(grad, x, *given),
            )
            same(first[0], expected[0])
            for one, two, cpu in zip(first[1:], again[1:], expected[1:], strict=True):
                assert torch.equal(one, two)  # the order of the sums is fixed
                torch.testing.assert_close(one.cpu(), cpu, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("name", NAMES)
class TestOtherOps:
    def test_input_gradient(self, name, axis, large):
        x = make(name, large=large)
        given = arguments(x, axis, 8, False)
        grad = torch.randn(x.shape).mT.clone().mT
        run = backend.fake_quantize_input_gradient
        same(run(on_gpu(grad), on_gpu(x), *moved(given)), run(grad, x, *given))

    def test_in_place(self, name, axis, large):
        if "expanded" in name or name == "overlapping":
            return  # elements that share memory; the CPU's test has the error
        x = make(name, large=large)
        given = arguments(x, axis, 8, False)
        expected = ops.fake_quantize(x, *given)
        overwritten = on_gpu(x)
        backend.fake_quantize_(overwritten, *moved(given))
        assert torch.equal(overwritten.cpu(), expected)
        learned = backend.fake_quantize_backward(torch.ones_like(expected), x, *given)
        for run in ("fake_quantize_backward_", "fake_quantize_input_gradient_"):
            grad = on_gpu(torch.ones(*x.shape, 2)[..., 0])  # not dense
            getattr(backend, run)(grad, on_gpu(x), *moved(given))
            assert torch.equal(grad.cpu(), learned[0])

    def test_into(self, name, axis, large):
        x = make(name, large=large)
        given = arguments(x, axis, 8, False)
        expected = ops.fake_quantize(x, *given)
        for out in (torch.ones_like(x), torch.ones(*x.shape, 2)[..., 0]):
            written = on_gpu(out)
            ops.fake_quantize(on_gpu(x), *moved(given), out=written)
            assert torch.equal(written.cpu(), expected)

    def test_observed(self, name, axis, large):
        for dtype in DTYPES:
            x = make(name, dtype, large)
            given = arguments(x, None, 8, False)[:4]
            got = backend.fake_quantize_observed(on_gpu(x), *moved(given))
            expected = backend.fake_quantize_observed(x, *given)
            for gpu, cpu in zip(got, expected, strict=True):
                same(gpu, cpu)

    def test_several_grids(self, name, axis, large):
        x = make(name, large=large)
        low, high, *_ = arguments(x, axis, 8, False)
        grids = [ops.integer_grid(bits, False) for bits in (2, 4, 8)]
        flags = [False] * 3
        got = backend.fake_quantize_many(
            on_gpu(x), moved([low] * 3), moved([high] * 3), moved(grids), flags, axis
        )
        expected = backend.fake_quantize_many(
            x, [low] * 3, [high] * 3, grids, flags, axis
        )
        for gpu, cpu in zip(got, expected, strict=True):
            same(gpu, cpu)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("saturate", [False, True])
def test_float_formats(form, saturate, dtype):
    if form[0] < 4 and not saturate:
        return  # no infinity to overflow to: an error on any device
    x = odd_values(dtype)
    for scale in (None, torch.tensor([0.037])):
        given = *form, saturate, scale
        same(ops.float_quantize(x.cuda(), *moved(given)), ops.float_quantize(x, *given))
        run, grad = backend.float_quantize_backward, torch.ones_like(x)
        same(run(grad.cuda(), x.cuda(), *moved(given)), run(grad, x, *given))


@pytest.mark.parametrize("axis", [None, 0, 1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_layouts_of_float_formats(name, axis):
    for dtype in DTYPES:
        x = make(name, dtype)
        given = 4, 3, True, ranges(x, axis)[1] / 448, axis
        same(
            ops.float_quantize(on_gpu(x), *moved(given)), ops.float_quantize(x, *given)
        )
        grad = torch.ones(x.shape, dtype=dtype).mT.clone().mT
        run = backend.float_quantize_backward
        same(run(on_gpu(grad), on_gpu(x), *moved(given)), run(grad, x, *given))


@pytest.mark.parametrize("name", STRIDED)
def test_strided_tensors_are_not_copied(name):
    x = on_gpu(make(name, large=True))
    given = moved(arguments(x.cpu(), None, 8, False))
    grad = torch.ones(x.shape, device="cuda").mT.clone().mT
    size = x.numel() * x.element_size()
    for run in (
        lambda: ops.fake_quantize(x, *given),
        lambda: backend.fake_quantize_input_gradient(grad, x, *given),
        lambda: backend.fake_quantize_backward(grad, x, *given),
        lambda: ops.float_quantize(x, 4, 3, True),
        lambda: backend.float_quantize_backward(grad, x, 4, 3, True),
    ):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = run()
        assert torch.cuda.max_memory_allocated() - before < 1.2 * size + 4096
        del result


def test_more_elements_than_32_bits_count():
    """Packs, elements, per channel and gradients beyond index 2^31."""
    count = (1 << 31) + (1 << 20)
    free, _ = torch.cuda.mem_get_info()
    if free < 8 * count:  # x, its gradient and the results, of 2 bytes each
        pytest.skip(f"needs {8 * count >> 30} GiB of GPU memory, {free >> 30} are free")
    x = torch.zeros(count, dtype=torch.bfloat16, device="cuda")
    x[-3:] = torch.tensor([0.3, 5.0, -5.0])
    end, grid = torch.ones(1, device="cuda"), ops.integer_grid(8, True, "cuda")
    small = ops.fake_quantize(x[-3:].clone(), -end, end, grid, True)
    y = ops.fake_quantize(x, -end, end, grid, True)
    assert torch.equal(y[-3:], small) and not y[: 1 << 20].any()
    del y
    y = ops.fake_quantize(x[1:], -end, end, grid, True)  # not in packs
    assert torch.equal(y[-3:], small)
    del y
    rows = x.view(-1, 1 << 20)
    ends = torch.ones(rows.size(0), device="cuda")
    y = ops.fake_quantize(rows, -ends, ends, grid, True, 0)
    assert torch.equal(y[-1, -3:], small)
    grad = y.fill_(1)
    dx, _, dmax = backend.fake_quantize_backward(grad, rows, -ends, ends, grid, True, 0)
    assert dx[-1, -3:].tolist() == [1, 0, 0]
    cpu = [t.cpu() for t in (grad[-1:], rows[-1:], -ends[:1], ends[:1], grid)]
    expected = backend.fake_quantize_backward(*cpu, True, 0)
    torch.testing.assert_close(dmax[-1:].cpu(), expected[2], rtol=1e-4, atol=1e-4)
