# SPDX-License-Identifier: BSD-3-Clause
"""Speed of fake_quantize beside a copy and beside PyTorch's own op.

Times are medians over rounds in which all contestants take turns, so that what else
the machine does meets them alike. Bytes per second count each operand once. A copy
is the floor: the op, too, reads and writes every element. All but the first make
their result, which for large tensors costs more than the arithmetic does.

    python benchmarks/fake_quant.py [--device cuda] [--threads 2] [--time cpu]

On a GPU a round is a row of calls between two waits for the device, so that what a
launch costs the host is hidden as in a model. The first line of each table is then the
device's copy bandwidth.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import torch

from aimetpp import ops

SIZES = {
    "cpu": (1 << 10, 1 << 16, 1 << 20, 1 << 24),
    "cuda": (1 << 20, 1 << 24, 1 << 26, 1 << 28),
}
CHANNELS = 64


@dataclass
class Contestant:
    """One thing to measure."""

    name: str
    run: Callable[[], object]
    tensors_moved: int  # of the size of x: read and written


def contestants(numel: int, dtype: torch.dtype, device: str) -> list[Contestant]:
    """What is measured for one size; the copies come first, then PyTorch's op."""
    x = torch.randn(numel, device=device).to(dtype)
    target, upstream = torch.empty_like(x), torch.randn_like(x)
    rows = x.view(CHANNELS, -1)
    low, high = (torch.tensor(end, device=device) for end in (-3.0, 3.0))
    lows, highs = low.repeat(CHANNELS), high.repeat(CHANNELS)
    grid = ops.integer_grid(8, False, device)
    backward = torch.ops.aimetpp.fake_quantize_backward
    input_gradient = torch.ops.aimetpp.fake_quantize_input_gradient
    observed = torch.ops.aimetpp.fake_quantize_observed
    every_second = torch.empty(2 * numel, dtype=dtype, device=device)[::2].copy_(x)
    scale, zero_point = 6 / 255, 128
    return [
        Contestant("copy into a tensor", lambda: target.copy_(x), 2),
        Contestant("copy into a new tensor (clone)", x.clone, 2),
        Contestant(
            "torch.fake_quantize_per_tensor_affine",
            lambda: torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 255),
            2,
        ),
        Contestant(
            "fake_quantize", lambda: ops.fake_quantize(x, low, high, grid, False), 2
        ),
        Contestant(
            "fake_quantize, per channel",
            lambda: ops.fake_quantize(rows, lows, highs, grid, False, 0),
            2,
        ),
        Contestant(
            "fake_quantize of every second element",
            lambda: ops.fake_quantize(every_second, low, high, grid, False),
            2,
        ),
        Contestant(
            "fake_quantize_observed", lambda: observed(x, low, high, grid, False), 2
        ),
        Contestant(
            "float_quantize, e4m3", lambda: ops.float_quantize(x, 4, 3, True), 2
        ),
        Contestant(
            "gradient, frozen range",
            lambda: input_gradient(upstream, x, low, high, grid, False),
            3,
        ),
        Contestant(
            "gradients, learned range",
            lambda: backward(upstream, x, low, high, grid, False),
            3,
        ),
        Contestant(
            "gradients, learned ranges per channel",
            lambda: backward(upstream.view_as(rows), rows, lows, highs, grid, False, 0),
            3,
        ),
    ]


def make_clock(kind: str, device: str) -> Callable[[], float]:
    """Wall time after the device is done, or processor time of the process."""

    def wall() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    return time.process_time if kind == "cpu" else wall


def measure(
    entries: list[Contestant], clock: Callable[[], float], rounds: int, repeats: int
) -> list[float]:
    """Median seconds per call of each entry."""
    seconds: list[list[float]] = [[] for _ in entries]
    for round_number in range(rounds + 3):
        for entry, times in zip(entries, seconds, strict=True):
            start = clock()
            for _ in range(repeats):
                entry.run()
            if round_number >= 3:  # the first ones warm up
                times.append((clock() - start) / repeats)
    return [statistics.median(times) for times in seconds]


def report(
    numel: int, dtype: torch.dtype, device: str, time_kind: str, rounds: int
) -> None:
    """Measures one size and prints its table."""
    entries = contestants(numel, dtype, device)
    repeats = 10 if device == "cuda" else max(1, (1 << 18) // numel)
    medians = measure(entries, make_clock(time_kind, device), rounds, repeats)
    print(f"\n{numel} elements, {str(dtype).removeprefix('torch.')}")
    print(f"  {'':38} {'us':>10} {'GB/s':>7} {'x copy':>7} {'x torch':>8}")
    for entry, seconds in zip(entries, medians, strict=True):
        moved = entry.tensors_moved * numel * dtype.itemsize
        print(
            f"  {entry.name:38} {seconds * 1e6:10.1f} {moved / seconds / 1e9:7.2f}"
            f" {seconds / medians[0]:7.2f} {seconds / medians[2]:8.2f}"
        )


def main() -> None:
    """Runs the benchmark as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--time",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: processor time, steadier on a busy machine, CPU device only",
    )
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--sizes", type=int, nargs="+", help="elements of a tensor")
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    if options.device == "cuda" and options.time == "cpu":
        parser.error("--time cpu does not see what a CUDA device does")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    name = (
        torch.cuda.get_device_name()
        if options.device == "cuda"
        else torch.backends.cpu.get_cpu_capability()
    )
    print(
        f"device {options.device} ({name}), {options.threads} threads, "
        f"torch {torch.__version__}, {options.time} time, {date.today()}"
    )
    dtype = getattr(torch, options.dtype)
    for numel in options.sizes or SIZES[options.device]:
        report(numel, dtype, options.device, options.time, options.rounds)


if __name__ == "__main__":
    main()
