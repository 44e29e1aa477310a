# SPDX-License-Identifier: BSD-3-Clause
"""The cost of automatic mixed precision: full fronts with replay, and as plain full
evaluation.

    PYTHONPATH=.:tests/zoo .venv/bin/python benchmarks/amp.py [--quick] [model ...]

64 images of 64 x 64, 3 candidates, SQNR in both phases, brute force, no allowed drop,
one thread. Times are CPU seconds of this process, which other work on the machine
disturbs less than wall-clock time. Where aimet-torch can be imported (build/peers,
which benchmarks/peers/run.py makes), its search runs beside these.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from packages import torchvision
from peers.amp_reference import reference_front
from torch import nn

from aimetpp import _C
from aimetpp.amp.mixed_precision_algo import EvalCallbackFactory
from aimetpp.batch_norm_fold import fold_all_batch_norms
from aimetpp.common.amp.utils import AMPSearchAlgo
from aimetpp.common.defs import QuantizationDataType
from aimetpp.common.memory import PeakMemory
from aimetpp.mixed_precision import choose_mixed_precision
from aimetpp.quantsim import QuantizationSimModel

INT = QuantizationDataType.int
CANDIDATES = [
    ((16, INT), (16, INT)),
    ((16, INT), (8, INT)),
    ((8, INT), (8, INT)),
]
# CPU seconds that the front may take.
TARGETS = {"mobilenet_v2": 20, "resnet18": 12}
MB = 1 << 20


def images(count: int) -> torch.Tensor:
    """`count` images, the same in every run."""
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def simulation(name: str, batches: list[torch.Tensor]) -> QuantizationSimModel:
    """A calibrated simulation of a model of torchvision with random weights."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    fold_all_batch_norms(model, (1, 3, 64, 64))
    sim = QuantizationSimModel(
        model, batches[0][:1], default_output_bw=16, default_param_bw=16
    )
    sim.compute_encodings(lambda m: [m(batch) for batch in batches])
    return sim


class Clock:
    """A progress callable that notes when the first phase ends, in CPU time."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []

    def __call__(self, phase: str, done: int, total: int) -> None:
        self.calls.append((phase, time.process_time()))

    def phase1(self) -> float:
        """CPU seconds of the first phase, which ends where the curve goes on."""
        phases = [phase for phase, _ in self.calls]
        first = phases.index("sensitivity")
        after = first + phases[first:].index("front")
        return self.calls[after][1] - self.calls[first][1]


def front(
    name: str,
    batches: list[torch.Tensor],
    budget: int | None,
    metric: Any = None,
    files: bool = True,
) -> tuple[Any, float, float]:
    """The result of one search, its CPU seconds, and those of its first phase; without
    `files` neither journal nor pages are written.
    """
    sim = simulation(name, batches)
    metric = metric or EvalCallbackFactory(batches).sqnr(None, None)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        result = choose_mixed_precision(
            sim,
            batches[0][:1],
            CANDIDATES,
            metric,
            metric,
            None,
            folder if files else None,
            True,
            None,
            amp_search_algo=AMPSearchAlgo.BruteForce,
            progress=clock,
            memory_budget=budget,
        )
        return result, time.process_time() - start, clock.phase1()


def scores(result: Any) -> list[Any]:
    """Every score of a search, phase by phase."""
    alone = [(str(s.group), s.candidate, s.score) for s in result.sensitivities]
    return [alone, [(point.cost, point.score) for point in result.points]]


def compare(name: str, batches: list[torch.Tensor]) -> None:
    """Prints one model's row: the reference, both ways here, whether scores are equal,
    and what is left without the model.
    """
    reference = reference_front(name, batches, CANDIDATES)
    plain, plain_seconds, _ = front(name, batches, 0)
    replayed, seconds, phase1 = front(name, batches, None)
    _, engine, _ = front(name, batches, None, lambda model: 1.0)
    _, bare, _ = front(name, batches, None, lambda model: 1.0, files=False)
    equal = "equal" if scores(plain) == scores(replayed) else "DIFFERENT"
    calls = sum(replayed.summary.evaluations.values())
    target = f"{TARGETS[name]} s" if name in TARGETS else "-"
    theirs, ratio = "-", "-"
    if reference is not None:
        theirs = (
            f"{reference.evaluations}; {reference.seconds:.1f} s, "
            f"{reference.phase1_seconds:.1f} s"
        )
        ratio = f"{reference.seconds / seconds:.1f} x"
    print(
        f"| {name} | {theirs} | {calls} | {plain_seconds:.1f} s | "
        f"{seconds:.1f} s, {phase1:.1f} s | {target} | {ratio} | "
        f"{plain_seconds / seconds:.2f} x | {engine:.2f} s, {bare:.2f} s | {equal} |",
        flush=True,
    )


def peak_rows(name: str, quick: bool) -> None:
    """Memory beyond the simulation, by budget; each in a process of its own."""
    print("\n| budget | most memory beyond the sim | beyond a search without replay |")
    print("|---|---|---|")
    plain = 0
    for budget in (0, 16 * MB, 64 * MB, 256 * MB):
        command = [sys.executable, __file__, "--peak", str(budget), name]
        run = subprocess.run(
            command + ["--quick"] * quick, check=True, stdout=subprocess.PIPE
        )
        peak = int(run.stdout)
        plain = plain or peak
        print(
            f"| {budget / MB:.0f} MiB | {peak / MB:.0f} MiB | "
            f"{(peak - plain) / MB:.0f} MiB |",
            flush=True,
        )


def peak(name: str, batches: list[torch.Tensor], budget: int) -> int:
    """Bytes of resident memory that phases 1 and 2 add to a simulation that has run."""
    sim = simulation(name, batches)
    metric = EvalCallbackFactory(batches).sqnr(None, None)
    metric(sim.model)
    cpu = torch.device("cpu")
    with PeakMemory(cpu) as before:
        pass
    with PeakMemory(cpu) as memory:
        choose_mixed_precision(
            sim,
            batches[0][:1],
            CANDIDATES,
            metric,
            metric,
            None,
            None,
            True,
            None,
            progress=False,
            memory_budget=budget,
        )
    return memory.peak_bytes - before.peak_bytes


class Chain(nn.Module):
    """As many functional ops as asked for, in blocks of a residual kind."""

    def __init__(self, ops: int) -> None:
        super().__init__()
        self.ops = ops

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.ops // 3):
            x = torch.relu(x * x.sigmoid())
        return x


def seconds_of(act: Callable[[], Any], times: int = 5) -> float:
    """The least CPU seconds of some calls."""
    found = []
    for _ in range(times):
        start = time.process_time()
        act()
        found.append(time.process_time() - start)
    return min(found)


def graph_rows() -> None:
    """Groups and the downstream set of a graph of 3,000 ops, without running it."""
    with contextlib.redirect_stderr(None), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sim = QuantizationSimModel(Chain(3000), torch.ones(2, 2))
    graph, placement = sim.graph, sim.placement
    groups = seconds_of(lambda: _C.build_groups(graph, placement))
    first = seconds_of(lambda: _C.downstream_calls(graph, placement, [0]))
    print(f"\ngroups of {len(graph.ops)} ops: {groups * 1e3:.1f} ms (target 200 ms)")
    print(f"calls downstream of the first quantizer: {first * 1e3:.2f} ms")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 images, to see it run")
    parser.add_argument("--peak", type=int, help="bytes: prints one budget's memory")
    parser.add_argument("models", nargs="*", default=list(TARGETS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    batches = list(images(4 if arguments.quick else 64).split(32))
    if arguments.peak is not None:
        print(peak(arguments.models[0], batches, arguments.peak))
        return
    print(
        "| model | AIMET: evaluations; all, phase 1 | evaluations | full evaluation | "
        "replay: all, phase 1 | target | to AIMET | to full evaluation | no model: "
        "all, no files | "
        "scores |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for name in arguments.models:
        compare(name, batches)
    peak_rows(arguments.models[0], arguments.quick)
    graph_rows()


if __name__ == "__main__":
    main()
