# SPDX-License-Identifier: BSD-3-Clause
"""The rows of speed.py for single ops."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from speed_table import Contestants, Table, repeated

from aimetpp import ops

LOW, HIGH, BITS = -3.0, 3.0, 8


def kernel_rows(table: Table) -> None:
    """All of them."""
    quick = table.options.quick
    shift = 8 if quick else 0
    forward_rows(table, 1 << 16 >> shift, "64K")
    forward_rows(table, 1 << 20 >> shift, "1M")
    channel_row(table)
    if not quick:
        forward_rows(table, 1 << 24, "16M")
    backward_row(table, 1 << 16 >> shift, "64K", 4.0)
    backward_row(table, 1 << 24 >> shift, "16M", 7.0)
    frozen_row(table, 1 << 16 >> shift, "64K")
    frozen_row(table, 1 << 20 >> shift, "1M")
    float_rows(table, 1 << 20 >> shift, "1M")
    several_row(table)
    strided_row(table)


def times_of(table: Table, numel: int) -> int:
    """How often a contestant runs in its turn: a processor that has run narrow
    instructions for a while takes some 200 us until wide ones are at full speed.
    """
    return 1 if table.options.quick else max(1, (1 << 24) // numel)


def peer_contestants(
    options: argparse.Namespace, x: torch.Tensor, channels: bool, backward: bool
) -> Contestants:
    """Other libraries' fake quantization of x, where they are installed."""
    contestants: Contestants = {}
    if not backward and not channels:
        contestants["torch"] = lambda: torch.fake_quantize_per_tensor_affine(
            x, (HIGH - LOW) / 255, 128, 0, 255
        )
    if not options.peers:
        return contestants
    from peers.contestants import contestants as peers

    return contestants | peers(x, LOW, HIGH, BITS, channels, backward)


def forward_rows(table: Table, numel: int, label: str) -> None:
    """Per tensor, out of place and in place."""
    x = torch.randn(numel)
    target, work = torch.empty_like(x), x.clone()
    low, high = torch.tensor(LOW), torch.tensor(HIGH)
    grid = ops.integer_grid(BITS, False)
    times = times_of(table, numel)
    copying = {"copy": repeated(lambda: target.copy_(x), times)}
    clone = {"clone": repeated(x.clone, times)}
    op = repeated(lambda: ops.fake_quantize(x, low, high, grid, False), times)
    over = repeated(lambda: ops.fake_quantize_(work, low, high, grid, False), times)
    peers = {
        name: repeated(run, times)
        for name, run in peer_contestants(table.options, x, False, False).items()
    }
    large = numel >= 1 << 24
    if large:
        new = {"ours": op, **peers}
        table.row(f"forward, {label}, out of place", clone, new, 1.05)
        table.row(f"forward, {label}, in place", copying, {"ours": over}, 1.2)
    else:
        others = {"ours": op, "ours in place": over, **peers}
        table.row(f"forward, {label}", copying, others, 1.3)


def channel_row(table: Table) -> None:
    """A convolution's weight, one range per output channel: into memory that is
    there, as simulations quantize weights, and with a new result.
    """
    x = torch.randn(8 if table.options.quick else 512, 512, 3, 3)
    target = torch.empty_like(x)
    lows = torch.full((x.size(0), 1, 1, 1), LOW)
    out = torch.empty_like(x)
    grid = ops.integer_grid(BITS, False)
    others = {
        "ours": lambda: ops.fake_quantize(x, lows, -lows, grid, False, 0, out=out),
        "new result": lambda: ops.fake_quantize(x, lows, -lows, grid, False, 0),
        **peer_contestants(table.options, x, True, False),
    }
    table.row(
        "forward, per-channel weight 512x512x3x3",
        {"copy": lambda: target.copy_(x)},
        others,
        1.2,
    )


def copies_of(*sources: torch.Tensor) -> Callable[[], None]:
    """Copies each into memory that is there."""
    pairs = [(torch.empty_like(source), source) for source in sources]

    def run() -> None:
        for target, source in pairs:
            target.copy_(source)

    return run


def backward_row(table: Table, numel: int, label: str, target: float) -> None:
    """Forward and backward with a learned range."""
    x = torch.randn(numel, requires_grad=True)
    upstream = torch.randn(numel)
    low = torch.tensor(LOW, requires_grad=True)
    high = torch.tensor(HIGH, requires_grad=True)
    grid = ops.integer_grid(BITS, False)
    two_copies = copies_of(x.detach(), upstream)

    def both() -> None:
        ops.fake_quantize(x, low, high, grid, False).backward(upstream)
        x.grad = low.grad = high.grad = None

    def with_backward(run: Callable[[], object]) -> Callable[[], object]:
        def step() -> None:
            result = run()
            assert isinstance(result, torch.Tensor)
            result.backward(upstream)
            x.grad = None

        return step

    times = times_of(table, numel)
    peers = {
        name: repeated(with_backward(run), times)
        for name, run in peer_contestants(table.options, x, False, True).items()
    }
    table.row(
        f"forward + backward, learned range, {label}",
        {"two copies": repeated(two_copies, times)},
        {"ours": repeated(both, times), **peers},
        target,
    )


def frozen_row(table: Table, numel: int, label: str) -> None:
    """Forward and backward where only the tensor gets a gradient."""
    x = torch.randn(numel, requires_grad=True)
    upstream = torch.randn(numel)
    low, high = torch.tensor(LOW), torch.tensor(HIGH)
    grid = ops.integer_grid(BITS, False)
    two_copies = copies_of(x.detach(), upstream)

    def ours() -> None:
        ops.fake_quantize(x, low, high, grid, False).backward(upstream)
        x.grad = None

    def torchs() -> None:
        torch.fake_quantize_per_tensor_affine(
            x, (HIGH - LOW) / 255, 128, 0, 255
        ).backward(upstream)
        x.grad = None

    times = times_of(table, numel)
    table.row(
        f"forward + backward, frozen range, {label}",
        {"two copies": repeated(two_copies, times)},
        {"ours": repeated(ours, times), "torch": repeated(torchs, times)},
    )


def float_rows(table: Table, numel: int, label: str) -> None:
    """Narrow floating-point formats; a cast there and back beside them."""
    x = torch.randn(numel)
    target = torch.empty_like(x)
    times = times_of(table, numel)
    for name, dtype, bits in (
        ("float16", torch.float16, (5, 10)),
        ("float8 e4m3", torch.float8_e4m3fn, (4, 3)),
    ):

        def ours(bits: tuple[int, int] = bits) -> None:
            ops.float_quantize(x, *bits, True)

        def casts(dtype: torch.dtype = dtype) -> None:
            x.to(dtype).to(torch.float32)

        table.row(
            f"forward, {name}, {label}",
            {"copy": repeated(lambda: target.copy_(x), times)},
            {"ours": repeated(ours, times), "two casts": repeated(casts, times)},
        )


def several_row(table: Table) -> None:
    """A weight on three grids at once, and on one after the other."""
    x = torch.randn(8 if table.options.quick else 512, 512, 3, 3)
    lows = torch.full((x.size(0), 1, 1, 1), LOW)
    grids = [ops.integer_grid(bits, True) for bits in (4, 8, 16)]

    def one_by_one() -> None:
        [ops.fake_quantize(x, lows, -lows, grid, True, 0) for grid in grids]

    table.row(
        "forward, weight 512x512x3x3 on three grids",
        {"three copies": copies_of(x, x, x)},
        {
            "ours": lambda: ops.fake_quantize_many(
                x, [lows] * 3, [-lows] * 3, grids, [True] * 3, 0
            ),
            "one by one": one_by_one,
        },
    )


def strided_row(table: Table) -> None:
    """The middle third of a projection's columns: not dense."""
    rows = 16 if table.options.quick else 2048
    x = torch.randn(rows, 3 * 768).chunk(3, 1)[1]
    target = torch.empty(rows, 768)
    low, high = torch.tensor(LOW), torch.tensor(HIGH)
    grid = ops.integer_grid(BITS, False)
    table.row(
        f"forward, a third of each row, {rows}x768",
        {"copy": lambda: target.copy_(x)},
        {
            "ours": lambda: ops.fake_quantize(x, low, high, grid, False),
            "contiguous first": lambda: ops.fake_quantize(
                x.contiguous(), low, high, grid, False
            ),
        },
    )
