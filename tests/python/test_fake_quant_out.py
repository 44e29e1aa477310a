# SPDX-License-Identifier: BSD-3-Clause
"""fake_quantize into a tensor that is there."""

import pytest
import torch

from aimetpp import ops


def arguments(axis=None, dtype=torch.float32):
    x = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    spread = torch.linspace(0.5, 2, 1 if axis is None else x.size(axis))
    return x, -spread, spread, ops.integer_grid(4, False), False, axis


TARGETS = {
    "like x": lambda x: torch.full_like(x, 7),
    "of another memory format": lambda x: torch.full_like(
        x.permute(2, 0, 1).contiguous(), 7
    ).permute(1, 2, 0),
    "a part of a larger one": lambda x: torch.full((4, 6, 16), 7).to(x)[..., ::2],
}


@pytest.mark.parametrize("make", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("transposed", [False, True])
def test_is_a_new_result(make, axis, dtype, transposed):
    x, *rest = arguments(axis, dtype)
    if transposed:
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    given = x.clone()
    out = make(x)
    assert ops.fake_quantize(x, *rest, out=out) is out
    assert torch.equal(out, ops.fake_quantize(x, *rest))
    assert torch.equal(x, given)


def test_what_lies_between_is_left_alone():
    x, *rest = arguments()
    whole = torch.full((4, 6, 16), 7.0)
    ops.fake_quantize(x, *rest, out=whole[..., ::2])
    assert (whole[..., 1::2] == 7).all()


def test_x_itself():
    x, *rest = arguments()
    expected = ops.fake_quantize(x, *rest)
    ops.fake_quantize(x, *rest, out=x)
    assert torch.equal(x, expected)


def test_raises_the_version():
    x, *rest = arguments()
    out = torch.empty_like(x)
    version = out._version
    ops.fake_quantize(x, *rest, out=out)
    assert out._version == version + 1


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (torch.empty(4, 6, 7), ValueError, r"shape \[4, 6, 8\], got \[4, 6, 7\]"),
        (torch.empty(4, 6, 8).double(), TypeError, "dtype Float, got Double"),
        (torch.empty(4, 6, 8, device="meta"), ValueError, "device cpu, got meta"),
        (torch.empty(1).expand(4, 6, 8), RuntimeError, "single memory location"),
    ],
    ids=["shape", "dtype", "device", "shared elements"],
)
def test_others_are_errors(out, error, message):
    x, *rest = arguments()
    with pytest.raises(error, match=message):
        ops.fake_quantize(x, *rest, out=out)


def test_memory_shared_in_part_is_an_error():
    whole = torch.randn(200)
    _, *rest = arguments()
    with pytest.raises(RuntimeError, match="overlap|single memory location"):
        ops.fake_quantize(whole[:192], *rest, out=whole[8:])


@pytest.mark.parametrize("which", ["x", "min", "max", "out"])
def test_a_gradient_is_refused(which):
    x, low, high, *rest = arguments()
    tensors = {"x": x, "min": low, "max": high, "out": torch.empty_like(x)}
    tensors[which].requires_grad_()
    x, low, high, out = tensors.values()
    with pytest.raises(RuntimeError, match="no gradient where it writes to `out`"):
        ops.fake_quantize(x, low, high, *rest, out=out)
    with torch.no_grad():
        ops.fake_quantize(x, low, high, *rest, out=out)
        assert torch.equal(out, ops.fake_quantize(x, low, high, *rest))


def test_compiles_and_scripts():
    x, low, high, grid, symmetric, axis = arguments(1)

    def run(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor, grid: torch.Tensor):
        out = torch.empty_like(x)
        ops.fake_quantize(x, low, high, grid, False, 1, out=out)
        return out * 2

    expected = 2 * ops.fake_quantize(x, low, high, grid, symmetric, axis)
    for made in (
        torch.jit.script(run),
        torch.compile(run, fullgraph=True, backend="aot_eager"),
    ):
        assert torch.equal(made(x, low, high, grid), expected)
