# SPDX-License-Identifier: BSD-3-Clause
"""What a simulation costs before it runs: construction, calibration, memory.

    python benchmarks/calibration.py [--models mobilenet_v2 resnet18] [--batch 8]
                                     [--threads 1] [--repeats 5] [--time cpu]
                                     [--schemes min_max tf_enhanced percentile mse]

Ratios of medians over rounds in which all contestants take turns:
  construction   QuantizationSimModel(model, x, in_place=True) to torch.jit's trace of
                 the same model, so that no deep copy is counted
  calibration    sim.compute_encodings over the batches to the model without
                 simulation over the same batches
  peak memory    of calibration and of a forward, each in a process of its own, less
                 what the process held before the model: (simulation - kept
                 statistics) to the model without simulation. glibc gets a fixed
                 mmap threshold there: large tensors would else share a heap with
                 small objects, and holes in it change the peak from run to run
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from aimetpp.quantsim import QuantizationSimModel

TARGETS = {"construction": 3.0, "min_max": 1.25, "tf_enhanced": 1.6, "memory": 1.15}


def make_model(name: str) -> torch.nn.Module:
    """A torchvision model with random weights, in eval mode."""
    _declare_torchvision_ops()
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.get_model(name).eval()


def _declare_torchvision_ops() -> None:
    # torchvision built for another PyTorch registers fake kernels for ops of its
    # library that could not be loaded; the models here use none of them.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            library.define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
    _KEPT.append(library)


_KEPT: list[torch.library.Library] = []


def batches(count: int, size: int) -> list[torch.Tensor]:
    """Images of 224 x 224."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, 224, 224, generator=generator) for _ in range(count)]


def run_all(model: torch.nn.Module, data: list[torch.Tensor]) -> None:
    """One pass over the batches."""
    with torch.no_grad():
        for x in data:
            model(x)


def interleaved(
    contestants: dict[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float],
) -> dict[str, float]:
    """Median seconds of each, all taking turns; one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(repeats + 1):
        for name, run in contestants.items():
            start = clock()
            run()
            if round_number > 0:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def construction(
    name: str, repeats: int, clock: Callable[[], float]
) -> tuple[float, float]:
    """Seconds of tracing the model and of making a simulation of it."""
    model = make_model(name)
    x = batches(1, 1)[0]
    copies = [copy.deepcopy(model) for _ in range(repeats + 1)]
    times = interleaved(
        {
            "trace": lambda: torch.jit.trace(model, x, check_trace=False),
            "simulate": lambda: QuantizationSimModel(copies.pop(), x, in_place=True),
        },
        repeats,
        clock,
    )
    return times["trace"], times["simulate"]


def calibration(
    name: str,
    schemes: list[str],
    data: list[torch.Tensor],
    repeats: int,
    clock: Callable[[], float],
) -> dict[str, float]:
    """Seconds of the model alone ("fp32") and of calibrating it by each scheme.

    Every calibration is a simulation's first: nothing is kept from another.
    """
    model = make_model(name)

    def first_calibration(scheme: str) -> Callable[[], object]:
        sims = [
            QuantizationSimModel(model, data[0][:1], quant_scheme=scheme)
            for _ in range(repeats + 1)
        ]
        return lambda: sims.pop().compute_encodings(run_all, data)

    contestants: dict[str, Callable[[], object]] = {
        "fp32": lambda: run_all(model, data),
        **{scheme: first_calibration(scheme) for scheme in schemes},
    }
    return interleaved(contestants, repeats, clock)


def measure_memory(name: str, scheme: str, size: int) -> None:
    """Prints peak and kept bytes of one process that calibrates, or of the model
    alone for the scheme "fp32"; what `memory` reads.
    """
    _run_a_small_simulation(scheme)
    model = make_model(name)
    data = batches(2, size)
    gc.collect()
    weights = sum(t.numel() * 4 for t in (*model.parameters(), *model.buffers()))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS") - weights
    kept = cached = 0
    if scheme == "fp32":
        run_all(model, data)
    else:
        sim = QuantizationSimModel(model, data[0][:1], scheme, in_place=True)
        sim.compute_encodings(run_all, data)
        run_all(sim.model, data)
        report = sim.memory_report()
        kept, cached = report["statistics"], report["cached_weights"]
    print(_status("VmHWM") - before, kept, cached)


def _run_a_small_simulation(scheme: str) -> None:
    """What PyTorch loads and keeps from its first use on belongs to no contestant."""
    layers = torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU6()
    model = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(288, 4))
    x = torch.randn(1, 3, 8, 8)
    sim = QuantizationSimModel(
        model.eval(), x, "min_max" if scheme == "fp32" else scheme
    )
    sim.compute_encodings(run_all, [x])
    run_all(sim.model, [x])
    run_all(model, [x])


def _status(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text()
    match = re.search(rf"{key}:\s+(\d+) kB", text)
    assert match is not None
    return int(match.group(1)) * 1024


def memory(name: str, scheme: str, size: int, threads: int) -> tuple[int, int, int]:
    """(peak, kept statistics, cached weights) in bytes: the smallest peak of three
    processes.
    """
    results = []
    for _ in range(3):
        command = [sys.executable, __file__, "--models", name, "--batch", str(size)]
        command += ["--threads", str(threads), "--measure-memory", scheme]
        output = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 17)},
        )
        peak, kept, cached = (int(part) for part in output.stdout.split())
        results.append((peak, kept, cached))
    return min(results)


def report(name: str, args: argparse.Namespace) -> None:
    """Prints the rows of one model."""
    clock = time.process_time if args.time == "cpu" else time.perf_counter
    trace, simulate = construction(name, args.repeats, clock)
    _row(name, "construction / trace", simulate / trace, TARGETS["construction"])
    data = batches(args.batches, args.batch)
    times = calibration(name, args.schemes, data, args.repeats, clock)
    for scheme in args.schemes:
        ratio = times[scheme] / times["fp32"]
        _row(name, f"calibration {scheme} / FP32", ratio, TARGETS.get(scheme))
    if not Path("/proc/self/clear_refs").exists():
        return
    plain, _, _ = memory(name, "fp32", args.batch, args.threads)
    for scheme in args.schemes:
        peak, kept, cached = memory(name, scheme, args.batch, args.threads)
        what = f"peak memory {scheme} / FP32 (statistics: {kept / 2**20:.1f} MiB)"
        _row(name, what, (peak - kept) / plain, TARGETS["memory"])
        what = f"the same without cached weights ({cached / 2**20:.1f} MiB)"
        _row(name, what, (peak - kept - cached) / plain, None)


def _row(name: str, what: str, ratio: float, target: float | None) -> None:
    limit = "" if target is None else f"{target:.2f}"
    print(f"| {name} | {what} | {ratio:.2f} | {limit} |", flush=True)


def main() -> None:
    """Measures what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["mobilenet_v2", "resnet18"])
    parser.add_argument("--schemes", nargs="+", default=["min_max", "tf_enhanced"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--time", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--measure-memory", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.measure_memory:
        measure_memory(args.models[0], args.measure_memory, args.batch)
        return
    print(f"PyTorch {torch.__version__}, {args.threads} threads, {args.time} time")
    print("| model | what | ratio | target |")
    print("|---|---|---|---|")
    for name in args.models:
        report(name, args)


if __name__ == "__main__":
    main()
