# SPDX-License-Identifier: BSD-3-Clause
"""One rank of a shared search, as a process: `amp_rank.py FOLDER MODE`.

MODE: "lives"; "dies", where rank 1 is killed in its second evaluation; "reads", where
the metric reads the rank; "shares", where rank 1 also scores a part of the data only.
Rank, size and store come from torchrun, or from AMP_RANK and AMP_STORE (2 ranks).
Prints as JSON what the whole profile gives, and a search with an allowed drop.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from amp_models import Closeness, choose, images, make_sim

from aimetpp.common import shared_work

shared_work.LEASE_SECONDS = 2.0
DROP = 0.1


class SharedCloseness(Closeness):
    """Makes sure that each rank gets something to evaluate."""

    def __init__(self, store: Any, rank: int, dies: bool) -> None:
        super().__init__()
        self.keys = store, rank, dies

    def metric_identity(self) -> tuple[Any, ...]:
        return (self.target,)

    def __call__(self, model: torch.nn.Module) -> float:
        store, rank, dies = self.keys
        if self.calls == 0:
            store.set(f"started {rank}", "1")
            store.wait(["started 0", "started 1"])
        if self.calls == 1 and dies:
            if rank == 1:
                store.set("killed", "1")
                os.kill(os.getpid(), signal.SIGKILL)
            store.wait(["killed"])
        return super().__call__(model)


class RankReading(Closeness):
    """Knows its rank, which does not change what it measures, unless it shares."""

    def __init__(self, rank: int, shares: bool) -> None:
        super().__init__()
        self.rank = rank
        self.device = f"cuda:{rank}"
        self.shares = shares

    def __call__(self, model: torch.nn.Module) -> float:
        score = super().__call__(model)
        if self.shares and self.rank == 1:
            output = model(images()[8:])
            return -float((output - self.target[8:]).square().mean())
        return score


def main(folder: Path, mode: str) -> None:
    if "AMP_STORE" in os.environ:
        rank = int(os.environ["AMP_RANK"])
        store = dist.FileStore(os.environ["AMP_STORE"], 2)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    else:  # a store of the test's own; the search finds torchrun's by itself
        rank = int(os.environ["RANK"])
        store = dist.FileStore(str(folder.parent / "store"), 2)
    metric: Closeness
    if mode in ("reads", "shares"):
        metric = RankReading(rank, mode == "shares")
    else:
        shared = dist.PrefixStore("test", store)
        metric = SharedCloseness(shared, rank, mode == "dies")
    for drop in (None, DROP):
        sim, before = make_sim(), metric.calls
        place = folder / str(drop)
        result = choose(sim, place, drop, metric=metric, progress=None)
        calls = {"calls": metric.calls - before}
        # In one write: torchrun's ranks share a pipe, and run unbuffered, where print
        # writes the end of the line by itself.
        sys.stdout.write(json.dumps(summary(result, sim) | calls) + "\n")
        sys.stdout.flush()


def summary(result: Any, sim: Any) -> dict[str, Any]:
    return {
        "list": [[cost, score, str(group)] for cost, score, group, _ in result],
        "points": [[point.cost, point.score] for point in result.points],
        "sensitivities": [[str(s.group), s.score] for s in result.sensitivities],
        "evaluations": result.summary.evaluations,
        "ranks": result.summary.num_ranks,
        "precisions": sim.precisions(),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
