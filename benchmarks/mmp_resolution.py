# SPDX-License-Identifier: BSD-3-Clause
"""How long a thousand precision requests on a graph of three thousand ops take.

Usage: PYTHONPATH=. python benchmarks/mmp_resolution.py [--blocks 1000] [--repeats 7]

Times are CPU milliseconds of this process, medians. "requests" are the calls of
set_precision, "resolve" is the resolution in C++, "apply" what a user calls, without a
log file: resolution and changing the quantizers. "report" is the report in C++, every
line and the text; it is made when somebody looks at it, so "apply" with a log file is
the sum of both. "rows": of the report's text.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from aimetpp import _C
from aimetpp.mixed_precision import MixedPrecisionConfigurator
from aimetpp.quantsim import QuantizationSimModel

BLOCKS_PER_STAGE = 50


class Block(torch.nn.Module):
    """conv+relu with a residual add: three ops."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 2, 1)
        self.relu = torch.nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.conv(x)) + x


def make_net(blocks: int) -> torch.nn.Module:
    """A sequence of stages of blocks."""
    stages = [
        torch.nn.Sequential(*(Block() for _ in range(BLOCKS_PER_STAGE)))
        for _ in range(blocks // BLOCKS_PER_STAGE)
    ]
    return torch.nn.Sequential(*stages).eval()


def fillers(blocks: int) -> dict[str, Callable[[MixedPrecisionConfigurator], None]]:
    """Ways to make as many requests as there are blocks, by name."""

    def each(name_of: Callable[[int], object], *more: object) -> Callable[..., None]:
        def fill(mp: MixedPrecisionConfigurator) -> None:
            for index in range(blocks):
                precision = "int16" if index % 3 else "int4"
                mp.set_precision(name_of(index), precision, *more)  # type: ignore[arg-type]

        return fill

    def block(index: int) -> str:
        return f"{index // BLOCKS_PER_STAGE}.{index % BLOCKS_PER_STAGE}"

    def different(mp: MixedPrecisionConfigurator) -> None:
        """No two requests ask for the same."""
        for index in range(blocks):
            weight = {"weight": f"int{2 + index // 31 % 31}"}
            mp.set_precision("*", f"int{2 + index % 31}", weight)

    def in_turn(mp: MixedPrecisionConfigurator) -> None:
        """The model, a type, a container, a leaf, and again."""
        for index in range(blocks):
            args = (torch.nn.Module, torch.nn.Conv2d, str(index % 20), block(index))
            mp.set_precision(args[index % 4], f"int{2 + index % 31}")

    return {
        "leaf": each(lambda index: f"{block(index)}.conv", {"weight": "int4"}),
        "container of 3 ops": each(block),
        "container of 150 ops": each(lambda index: str(index % (blocks // 50))),
        "type Conv2d": each(lambda index: torch.nn.Conv2d, {"weight": "int4"}),
        "type Module": each(lambda index: torch.nn.Module, {"weight": "int4"}),
        "glob *": each(lambda index: "*", {"weight": "int4"}),
        "glob * (all different)": different,
        "glob of its own": each(lambda index: f"{block(index)}.*"),
        "model, type, part, leaf": in_turn,
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    sim = QuantizationSimModel(make_net(arguments.blocks), torch.ones(1, 2, 4, 4))
    ways = fillers(arguments.blocks)
    seconds: dict[str, list[list[float]]] = {name: [] for name in ways}
    rows: dict[str, int] = {}
    start = sim.precisions()
    for _ in range(arguments.repeats):
        for name, fill in ways.items():
            sim.apply_precisions(start)
            times = [time.process_time()]
            configurator = MixedPrecisionConfigurator(sim)
            fill(configurator)
            times.append(time.process_time())
            _C.resolve_requests(
                sim.graph, sim.placement, start, configurator._requests, False
            )
            times.append(time.process_time())
            report = configurator.apply(None, strict=False)
            times.append(time.process_time())
            rows[name] = str(report).count("\n")
            times.append(time.process_time())
            seconds[name].append(
                [end - begin for begin, end in zip(times, times[1:], strict=False)]
            )
    print(f"{len(sim.graph.ops)} ops, {arguments.blocks} requests; CPU ms, medians")
    heads = ("requests", "resolve", "apply", "report", "rows")
    print(f"{'each request on a':<24}" + "".join(f"{head:>9}" for head in heads))
    for name, columns in seconds.items():
        medians = [
            1000 * statistics.median(column) for column in zip(*columns, strict=True)
        ]
        cells = "".join(f"{value:>9.0f}" for value in medians)
        print(f"{name:<24}{cells}{rows[name]:>9}")


if __name__ == "__main__":
    main()
