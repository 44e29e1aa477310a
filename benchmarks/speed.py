# SPDX-License-Identifier: BSD-3-Clause
"""The whole table of speed targets, each a ratio within one run.

    PYTHONPATH=. python benchmarks/speed.py [--threads 1] [--time cpu] [--peers]
    PYTHONPATH=. python benchmarks/speed.py --quick    # does it all run? seconds

All contestants of a row take turns, so that what else the machine does meets them
alike; a ratio is that of medians. --peers adds other libraries' fake quantization,
where they are installed: see peers/run.py.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import time
from collections.abc import Callable
from pathlib import Path

import torch
from calibration import interleaved, make_model, run_all
from torch import nn

from aimetpp import ops
from aimetpp.quantsim import QuantizationSimModel

Contestants = dict[str, Callable[[], object]]

LOW, HIGH, BITS = -3.0, 3.0, 8


class Table:
    """Measures rows and prints them as they come."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.clock = time.process_time if options.time == "cpu" else time.perf_counter

    def row(
        self, what: str, limit: Contestants, others: Contestants, target: float
    ) -> None:
        """`limit`: one entry, what every time is divided by. The first of `others`
        is what the target is for.
        """
        rounds = 1 if self.options.quick else self.options.repeats
        seconds = interleaved({**limit, **others}, rounds, self.clock)
        (floor,) = (seconds[name] for name in limit)
        ratios = {name: seconds[name] / floor for name in others}
        ours, *rest = ratios.items()
        peers = ", ".join(f"{name} {ratio:.2f}" for name, ratio in rest)
        met = "yes" if ours[1] <= target else "no"
        print(
            f"| {what} | {next(iter(limit))} {floor * 1e3:.3g} ms | {ours[1]:.2f} "
            f"| {target:.2f} | {met} | {peers} |",
            flush=True,
        )


def repeated(run: Callable[[], object], times: int) -> Callable[[], object]:
    """Runs often enough for the clock."""

    def loop() -> None:
        for _ in range(times):
            run()

    return loop


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
    times = max(1, (1 << 21) // numel)
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
        table.row(f"forward, {label}, out of place", clone, {"ours": op}, 1.05)
        table.row(f"forward, {label}, in place", copying, {"ours": over}, 1.2)
    else:
        others = {"ours": op, "ours in place": over, **peers}
        table.row(f"forward, {label}", copying, others, 1.3)


def channel_row(table: Table) -> None:
    """A convolution's weight, one range per output channel."""
    x = torch.randn(8 if table.options.quick else 512, 512, 3, 3)
    target = torch.empty_like(x)
    lows = torch.full((x.size(0), 1, 1, 1), LOW)
    grid = ops.integer_grid(BITS, False)
    others = {
        "ours": lambda: ops.fake_quantize(x, lows, -lows, grid, False, 0),
        **peer_contestants(table.options, x, True, False),
    }
    table.row(
        "forward, per-channel weight 512x512x3x3",
        {"copy": lambda: target.copy_(x)},
        others,
        1.2,
    )


def backward_row(table: Table, numel: int, label: str, target: float) -> None:
    """Forward and backward with a learned range."""
    x = torch.randn(numel, requires_grad=True)
    upstream = torch.randn(numel)
    low = torch.tensor(LOW, requires_grad=True)
    high = torch.tensor(HIGH, requires_grad=True)
    grid = ops.integer_grid(BITS, False)
    first, second = torch.empty(numel), torch.empty(numel)

    def both() -> None:
        ops.fake_quantize(x, low, high, grid, False).backward(upstream)
        x.grad = low.grad = high.grad = None

    def two_copies() -> None:
        with torch.no_grad():
            first.copy_(x)
            second.copy_(upstream)

    def with_backward(run: Callable[[], object]) -> Callable[[], object]:
        def step() -> None:
            result = run()
            assert isinstance(result, torch.Tensor)
            result.backward(upstream)
            x.grad = None

        return step

    times = max(1, (1 << 20) // numel)
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


class SmallNetwork(nn.Module):
    """Stands for the networks in a quick run."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        y = y + y.flip(0)
        return self.head(y.mean((2, 3)))


def network_rows(table: Table, name: str, target: float, qat: bool) -> None:
    """Simulated to float: a forward, and a training step."""
    quick = table.options.quick
    model = SmallNetwork().eval() if quick else make_model(name)
    x = torch.randn(8, 3, 32, 32) if quick else torch.randn(8, 3, 224, 224)
    sim = QuantizationSimModel(model, x[:1])
    sim.compute_encodings(lambda m: m(x[:2]))
    table.row(
        f"simulation / FP32, {name}, batch 8, W8A8 per-channel",
        {"FP32": lambda: run_all(model, [x])},
        {"ours": lambda: run_all(sim.model, [x])},
        target,
    )
    if not qat:
        return
    frozen = copy.deepcopy(sim)
    for parameter in frozen.quantizer_parameters():
        parameter.requires_grad_(False)
    step = training_step(model, x)
    for label, simulation, limit in (("learned", sim, 1.3), ("frozen", frozen, 1.2)):
        table.row(
            f"QAT step, {name}, {label} ranges",
            {"FP32": step},
            {"ours": training_step(simulation.model, x)},
            limit,
        )


def training_step(model: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    """One step of SGD on an arbitrary loss."""
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return step


def calibration_row(table: Table, name: str) -> None:
    """TF-Enhanced calibration of a new simulation, beside the float passes."""
    quick = table.options.quick
    model = SmallNetwork().eval() if quick else make_model(name)
    size = 32 if quick else 224
    data = [torch.randn(8, 3, size, size) for _ in range(4)]
    rounds = 1 if quick else table.options.repeats
    sims = [
        QuantizationSimModel(model, data[0][:1], quant_scheme="tf_enhanced")
        for _ in range(rounds + 1)
    ]
    table.row(
        f"TF-Enhanced calibration, {name}, 4 batches",
        {"FP32": lambda: run_all(model, data)},
        {"ours": lambda: sims.pop().compute_encodings(run_all, data)},
        1.6,
    )


def processor() -> str:
    """The CPU's model, where the system says."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown CPU"
    names = [line for line in text.splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else "unknown CPU"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--time", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument(
        "--only", choices=("kernels", "networks"), help="half of the table"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, one round: does it run?"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(
        f"{datetime.date.today()}, {processor()} "
        f"({torch.backends.cpu.get_cpu_capability()}), PyTorch {torch.__version__}, "
        f"{options.threads} threads, {options.time} time"
    )
    print(
        "| what | limit | ours | target | met | beside it |\n|---|---|---|---|---|---|"
    )
    table = Table(options)
    shift = 8 if options.quick else 0
    if options.only != "networks":
        forward_rows(table, 1 << 16 >> shift, "64K")
        forward_rows(table, 1 << 20 >> shift, "1M")
        channel_row(table)
        forward_rows(table, 1 << 24, "16M") if not options.quick else None
        backward_row(table, 1 << 16 >> shift, "64K", 4.0)
        backward_row(table, 1 << 24 >> shift, "16M", 7.0)
    if options.only != "kernels":
        options.repeats = min(options.repeats, 7)
        network_rows(table, "mobilenet_v2", 1.1, qat=True)
        network_rows(table, "resnet18", 1.05, qat=False)
        calibration_row(table, "mobilenet_v2")


if __name__ == "__main__":
    main()
