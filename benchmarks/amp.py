# SPDX-License-Identifier: BSD-3-Clause
"""The cost of automatic mixed precision: full fronts with replay, and as plain full
evaluation.

    PYTHONPATH=.:tests/zoo .venv/bin/python benchmarks/amp.py [--quick] [model ...]

64 images of 64 x 64, 3 candidates, SQNR in both phases, brute force, no allowed drop,
one thread. Times are CPU seconds of this process, which other work on the machine
disturbs less than wall-clock time.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from packages import torchvision
from torch import nn

from aimetpp import _C
from aimetpp.amp.mixed_precision_algo import EvalCallbackFactory
from aimetpp.batch_norm_fold import fold_all_batch_norms
from aimetpp.common.amp.utils import AMPSearchAlgo
from aimetpp.common.defs import QuantizationDataType
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


def front(name: str, batches: list[torch.Tensor], budget: int | None) -> Any:
    """The result of one search, and its CPU seconds."""
    sim = simulation(name, batches)
    metric = EvalCallbackFactory(batches).sqnr(None, None)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        result = choose_mixed_precision(
            sim,
            batches[0][:1],
            CANDIDATES,
            metric,
            metric,
            None,
            folder,
            True,
            None,
            amp_search_algo=AMPSearchAlgo.BruteForce,
            progress=False,
            memory_budget=budget,
        )
        return result, time.process_time() - start


def scores(result: Any) -> list[Any]:
    """Every score of a search, phase by phase."""
    alone = [(str(s.group), s.candidate, s.score) for s in result.sensitivities]
    return [alone, [(point.cost, point.score) for point in result.points]]


def compare(name: str, batches: list[torch.Tensor]) -> None:
    """Prints one model's rows: both ways, and whether their scores are equal."""
    plain, plain_seconds = front(name, batches, 0)
    replayed, seconds = front(name, batches, None)
    equal = "equal" if scores(plain) == scores(replayed) else "DIFFERENT"
    calls = sum(replayed.summary.evaluations.values())
    phase1 = replayed.summary.seconds["sensitivity"]
    target = f"{TARGETS[name]} s" if name in TARGETS else "-"
    print(
        f"| {name} | {calls} | {plain_seconds:.1f} s | {seconds:.1f} s | "
        f"{plain_seconds / seconds:.2f} x | {target} | {phase1:.1f} s wall | {equal} |",
        flush=True,
    )


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
    parser.add_argument("models", nargs="*", default=list(TARGETS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    batches = list(images(2 if arguments.quick else 64).split(32))
    print(
        "| model | evaluations | full evaluation | replay | ratio | target | phase 1 | "
        "scores |\n|---|---|---|---|---|---|---|---|"
    )
    for name in arguments.models:
        compare(name, batches)
    graph_rows()


if __name__ == "__main__":
    main()
