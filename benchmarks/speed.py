# SPDX-License-Identifier: BSD-3-Clause
"""The whole table of speed targets, each a ratio within one run.

    PYTHONPATH=. python benchmarks/speed.py [--threads 1] [--time cpu] [--peers]
    PYTHONPATH=. python benchmarks/speed.py --quick    # does it all run? seconds

All contestants of a row take turns, so that what else the machine does meets them
alike; a ratio is that of medians. --peers adds torch.compile's fake quantization, and
that of other libraries where they are installed: see peers/run.py.
"""

from __future__ import annotations

import argparse
import copy
import datetime
from collections.abc import Callable
from pathlib import Path

import torch
from calibration import make_model, run_all
from speed_kernels import kernel_rows
from speed_table import Table
from torch import nn

from aimetpp.quantsim import QuantizationSimModel


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
        + (": tiny sizes, which only show that it runs" if options.quick else "")
    )
    print(
        "| what | limit | ours | target | met | beside it |\n|---|---|---|---|---|---|"
    )
    table = Table(options)
    if options.only != "networks":
        kernel_rows(table)
    if options.only != "kernels":
        options.repeats = min(options.repeats, 7)
        network_rows(table, "mobilenet_v2", 1.1, qat=True)
        network_rows(table, "resnet18", 1.05, qat=False)
        calibration_row(table, "mobilenet_v2")


if __name__ == "__main__":
    main()
