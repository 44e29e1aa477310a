# SPDX-License-Identifier: BSD-3-Clause
"""The library's torch ops with types and documentation.

Each function is one call of the op `torch.ops.aimetpp.<name>`, which is what
TorchScript, `torch.export` and C++ programs see. With a grid of integers qmin..qmax of
N = qmax - qmin steps and a range [min, max]:

    scale  = (max - min) / N, at least min(2**-23, 0.01 / N) in magnitude
    offset = clamp(round(min / scale) - qmin, -qmax, -qmin)   asymmetric
           = -round((qmin + qmax) / 2)                        symmetric
    q      = clamp(round(x / scale) - offset, qmin, qmax)     quantize
    y      = (q + offset) * scale                             dequantize

`round` is half-to-even, an infinity saturates, a NaN stays a NaN. The arithmetic is
float32 for float32, float16 and bfloat16 tensors (rounded once, on the way out),
and float64 for float64 tensors and grids of 22 bits or more.

Gradients are straight through: `round` counts as the identity, and what the clamp
cut off passes no gradient to `x`. Those to `min` and `max` follow from the formulas
above; they are summed in a fixed order, at most 8 terms in the precision of the
arithmetic and their sums in float64, so they do not depend on the number of threads.
There are no second derivatives: asking for one raises.
"""

import torch
from torch import Tensor
from torch.compiler import is_compiling

from aimetpp import _C


def integer_grid(
    bitwidth: int, symmetric: bool, device: torch.device | str | None = None
) -> Tensor:
    """Returns the grid of a bit-width as the ops take it.

    Args:
        bitwidth: 2 to 32.
        symmetric: Signed, [-2**(b-1), 2**(b-1) - 1], else [0, 2**b - 1].
        device: Where the tensors to quantize are.

    Returns:
        int64 tensor [qmin, qmax].

    Raises:
        ValueError: `bitwidth` is not in 2..32.
    """
    ends = _C.integer_grid(bitwidth, "symmetric" if symmetric else "asymmetric")
    return torch.tensor(ends, device=device)


def fake_quantize(
    x: Tensor,
    min: Tensor,
    max: Tensor,
    grid: Tensor,
    symmetric: bool,
    channel_axis: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Rounds a tensor to the real numbers that a grid can represent.

    Args:
        x: Any shape; float32, float64, float16 or bfloat16.
        min: Start of the range, float32 or float64. One element, or, with
            `channel_axis`, `x.size(channel_axis)` elements in any shape.
        max: End of the range, like `min`.
        grid: int64 tensor [qmin, qmax] on x's device; see `integer_grid`.
        symmetric: Whether the grid alone fixes the offset.
        channel_axis: Axis of `x` with one range per index, negative from the end;
            None for one range.
        out: Where the result goes, without a gradient: a tensor of x's shape, dtype
            and device, best of its memory format too. Fresh memory of megabytes,
            which the result takes otherwise, costs as much as the op.

    Returns:
        `dequantize(quantize(x))`: x's shape, dtype and memory format; or `out`.

    Raises:
        TypeError: A dtype is not one of those above.
        ValueError: A size does not fit, a tensor is on another device, or (on the
            CPU; on CUDA it is not read) the grid does not have qmin < qmax.
        IndexError: `x` has no axis `channel_axis`.
        RuntimeError: With `out`, a gradient to `x`, `min` or `max` is asked for, or
            `out` shares part of its memory with `x`.
    """
    if out is not None:
        torch.ops.aimetpp.fake_quantize_into(
            out, x, min, max, grid, symmetric, channel_axis
        )
        return out
    if not torch.jit.is_scripting() and not is_compiling():
        y = _C.fake_quantize(x, min, max, grid, symmetric, channel_axis)
        if y is not None:
            return y
    return torch.ops.aimetpp.fake_quantize(x, min, max, grid, symmetric, channel_axis)


def fake_quantize_(
    x: Tensor,
    min: Tensor,
    max: Tensor,
    grid: Tensor,
    symmetric: bool,
    channel_axis: int | None = None,
) -> Tensor:
    """`fake_quantize` written over `x`, without a gradient.

    Arguments and errors are those of `fake_quantize`.

    Returns:
        `x`.

    Raises:
        RuntimeError: A gradient to `x`, `min` or `max` is asked for.
    """
    if not torch.jit.is_scripting() and not is_compiling():
        y = _C.fake_quantize_(x, min, max, grid, symmetric, channel_axis)
        if y is not None:
            return y
    torch.ops.aimetpp.fake_quantize_(x, min, max, grid, symmetric, channel_axis)
    return x


def fake_quantize_many(
    x: Tensor,
    min: list[Tensor],
    max: list[Tensor],
    grid: list[Tensor],
    symmetric: list[bool],
    channel_axis: int | None = None,
) -> list[Tensor]:
    """`fake_quantize` on several grids, such as those of several bit-widths.

    A large `x` is read from memory once. CPU only, and without gradients.

    Args:
        x: As in `fake_quantize`.
        min: One for each grid, each as in `fake_quantize`.
        max: The same.
        grid: The grids.
        symmetric: One for each grid.
        channel_axis: As in `fake_quantize`, the same for all.

    Returns:
        For each grid what `fake_quantize` returns.

    Raises:
        ValueError: The lists differ in length; and as `fake_quantize`.
        TypeError: As in `fake_quantize`.
        IndexError: As in `fake_quantize`.
        RuntimeError: A gradient is asked for.
    """
    return torch.ops.aimetpp.fake_quantize_many(
        x, min, max, grid, symmetric, channel_axis
    )


def fake_quantize_observed(
    x: Tensor, min: Tensor, max: Tensor, grid: Tensor, symmetric: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`fake_quantize` with one range, and the extremes of `x`, in one read of it.

    Arguments and errors are those of `fake_quantize`.

    Returns:
        What `fake_quantize` returns, and the least and the largest finite value of
        `x`, float32 of shape (), infinity and -infinity where there is none. Only the
        first has a gradient, to `x`.

    Raises:
        ValueError: `min` or `max` requires a gradient; and as `fake_quantize`.
    """
    return torch.ops.aimetpp.fake_quantize_observed(x, min, max, grid, symmetric)


def quantize(
    x: Tensor,
    min: Tensor,
    max: Tensor,
    grid: Tensor,
    symmetric: bool,
    channel_axis: int | None = None,
) -> Tensor:
    """Returns the integers of the grid that a tensor rounds to.

    Arguments and errors are those of `fake_quantize`.

    Returns:
        Integers in [qmin, qmax] of x's shape and floating dtype, which holds them
        exactly up to 2048 (float16), 256 (bfloat16), 2**24 (float32).
    """
    return torch.ops.aimetpp.quantize(x, min, max, grid, symmetric, channel_axis)


def dequantize(
    q: Tensor,
    min: Tensor,
    max: Tensor,
    grid: Tensor,
    symmetric: bool,
    channel_axis: int | None = None,
) -> Tensor:
    """Returns the real numbers that the integers of a grid stand for.

    Args:
        q: What `quantize` returned. Values off the grid are not clamped.
        min: As in `fake_quantize`.
        max: As in `fake_quantize`.
        grid: As in `fake_quantize`.
        symmetric: As in `fake_quantize`.
        channel_axis: As in `fake_quantize`.

    Returns:
        (q + offset) * scale, of q's shape and dtype.
    """
    return torch.ops.aimetpp.dequantize(q, min, max, grid, symmetric, channel_axis)


def float_quantize(
    x: Tensor,
    exponent_bits: int,
    mantissa_bits: int,
    saturate: bool,
    scale: Tensor | None = None,
    channel_axis: int | None = None,
) -> Tensor:
    """Rounds a tensor to a narrow floating-point format, half to even and once.

    Args:
        x: Any shape; float32, float64, float16 or bfloat16.
        exponent_bits: With `mantissa_bits` one of (5, 10) float16, (8, 7) bfloat16,
            (5, 2) and (4, 3) float8, (3, 2) and (2, 3) float6, (2, 1) float4; those
            of 8 bits and fewer as the Open Compute Project defines them.
        mantissa_bits: See `exponent_bits`.
        saturate: What rounds beyond the format's largest becomes the largest, and
            passes no gradient; else infinity (NaN with (4, 3)), and every gradient
            passes. Must be True for the formats of 6 bits and fewer.
        scale: float32, positive (not checked); one element, or, with `channel_axis`,
            `x.size(channel_axis)` in any shape. None for 1. It has no gradient.
        channel_axis: Axis of `x` with one scale per index, negative from the end.

    Returns:
        round(x / scale) * scale, of x's shape, dtype and memory format.

    Raises:
        TypeError: A dtype is not one of those above.
        ValueError: Another format; a size that does not fit; a tensor on another
            device; a scale that requires a gradient.
        IndexError: `x` has no axis `channel_axis`.
    """
    return torch.ops.aimetpp.float_quantize(
        x, exponent_bits, mantissa_bits, saturate, scale, channel_axis
    )


def site(x: Tensor, id: int) -> Tensor:
    """Marks a tensor as a quantization site for whoever traces the model.

    Args:
        x: Any tensor.
        id: Number of the site.

    Returns:
        A view of all of `x`. A trace has one node `aimetpp::site(x, id)` for the
        call, provided that something uses the view: `torch.jit` drops unused nodes.
    """
    return torch.ops.aimetpp.site(x, id)
