# SPDX-License-Identifier: BSD-3-Clause
"""The table of speed.py: rows of interleaved contestants."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from calibration import interleaved

Contestants = dict[str, Callable[[], object]]


class Table:
    """Measures rows and prints them as they come."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.clock = time.process_time if options.time == "cpu" else time.perf_counter

    def row(
        self,
        what: str,
        limit: Contestants,
        others: Contestants,
        target: float | None = None,
    ) -> None:
        """`limit`: one entry, what every time is divided by. The first of `others`
        is what the target is for, where there is one.
        """
        rounds = 1 if self.options.quick else self.options.repeats
        seconds = interleaved({**limit, **others}, rounds, self.clock)
        (floor,) = (seconds[name] for name in limit)
        ratios = {name: seconds[name] / floor for name in others}
        ours, *rest = ratios.items()
        peers = ", ".join(f"{name} {ratio:.2f}" for name, ratio in rest)
        aim = "" if target is None else f"{target:.2f}"
        says = target is not None and not self.options.quick
        met = "" if not says else "yes" if ours[1] <= target else "no"
        print(
            f"| {what} | {next(iter(limit))} {floor * 1e3:.3g} ms | {ours[1]:.2f} "
            f"| {aim} | {met} | {peers} |",
            flush=True,
        )


def repeated(run: Callable[[], object], times: int) -> Callable[[], object]:
    """Runs often enough for the clock."""

    def loop() -> None:
        for _ in range(times):
            run()

    return loop
