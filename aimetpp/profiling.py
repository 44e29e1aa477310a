# SPDX-License-Identifier: BSD-3-Clause
"""Where the time of one simulated forward goes, beside the same forward in float."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from aimetpp.common.inference import inference
from aimetpp.quantization.base import SITE_EVENT
from aimetpp.quantsim import QuantizationSimModel
from aimetpp.quantsim.tracing import split_dummy_input

# What csrc/python/quantizer_view.h calls its events of modules and functional ops.
_CALL = "aimetpp call "
# Those made here, around each recorded forward.
_FORWARD = "aimetpp forward "


@dataclass(frozen=True)
class CallTime:
    """One leaf module or functional op, all its calls in one forward.

    Attributes:
        name: dotted name of the module, or "module/op_ordinal".
        op: what it computes ("conv2d"), where the graph says.
        calls: how often it ran.
        simulated, float_: milliseconds, with what is quantized around it, and without.
        quantizing: the part of `simulated` spent in quantizers.
    """

    name: str
    op: str
    calls: int
    simulated: float
    float_: float
    quantizing: float


@dataclass(frozen=True)
class SiteTime:
    """One quantizer: milliseconds of all its runs in one forward."""

    name: str
    runs: int
    milliseconds: float


@dataclass(frozen=True)
class ForwardProfile:
    """What `profile_forward` measured; `str` is a report.

    Attributes:
        simulated, float_: milliseconds of one forward, medians over the repeats, with
            nothing recorded. The rows below come from recorded forwards, in which
            every event costs a few microseconds more. They are the CPU's time: of a
            model on a GPU, what it takes to start the work there.
        calls: one row per leaf module and functional op, the slowest first.
        sites: one row per quantizer, the slowest first.
    """

    simulated: float
    float_: float
    calls: list[CallTime]
    sites: list[SiteTime]

    @property
    def ratio(self) -> float:
        """Simulated to float time."""
        return self.simulated / self.float_

    def report(self, rows: int = 20) -> str:
        """A table of the slowest `rows` calls and sites each, `rows` at least 1."""
        quantizing = sum(site.milliseconds for site in self.sites)
        inside = sum(call.simulated for call in self.calls)
        calls, sites = self.calls[:rows], self.sites[:rows]
        # Names end in one column, and so do the numbers behind them.
        width = max([44, *map(len, [c.name for c in calls])])
        site_width = max([width + 17, *map(len, [s.name for s in sites])])
        lines = [
            f"one forward: simulated {self.simulated:.2f} ms, float "
            f"{self.float_:.2f} ms, ratio {self.ratio:.3f}",
            f"recorded: {inside:.2f} ms in {len(self.calls)} modules and functional "
            f"ops, of which {quantizing:.2f} ms in {len(self.sites)} quantizers",
            "",
            f"{'call':<{width}} {'op':<16} {'n':>3} {'sim ms':>9} {'float ms':>9} "
            f"{'quantizing':>10}",
        ]
        lines += [
            f"{c.name:<{width}} {c.op:<16} {c.calls:>3} {c.simulated:>9.3f} "
            f"{c.float_:>9.3f} {c.quantizing:>10.3f}"
            for c in calls
        ]
        lines += _rest(len(self.calls), rows, "calls")
        lines += ["", f"{'site':<{site_width}} {'n':>3} {'ms':>9}"]
        lines += [
            f"{s.name:<{site_width}} {s.runs:>3} {s.milliseconds:>9.3f}" for s in sites
        ]
        return "\n".join(lines + _rest(len(self.sites), rows, "sites"))

    def __str__(self) -> str:
        return self.report()


def _rest(count: int, shown: int, what: str) -> list[str]:
    return [f"... and {count - shown} faster {what}"] if count > shown else []


def profile_forward(
    sim: QuantizationSimModel, example_input: Any = None, repeats: int = 5
) -> ForwardProfile:
    """Measures forwards of a simulation without gradients, in eval mode.

    Args:
        sim: a calibrated simulation.
        example_input: like the simulation's dummy_input, which is the default: a
            tensor, a tuple or list (positional) or a dict (keyword arguments).
        repeats: simulated and float forwards that are timed in turn, and recorded
            ones after them; medians are taken. Two of each come first to warm up.

    Raises:
        ValueError: `repeats` below 1.
        RuntimeError: a quantizer has no range yet.
    """
    if repeats < 1:
        raise ValueError(f"profile_forward: repeats must be at least 1, got {repeats}")
    given = sim.dummy_input if example_input is None else example_input
    args, kwargs = split_dummy_input(given)

    def simulated() -> None:
        sim.model(*args, **kwargs)

    def in_float() -> None:
        with sim.quantizers_off():
            sim.model(*args, **kwargs)

    with inference(sim.model):
        for _ in range(2):
            simulated()
            in_float()
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(repeats):
            for run, values in zip((simulated, in_float), times, strict=True):
                start = time.perf_counter()
                run()
                _wait_for_devices()
                values.append(1e3 * (time.perf_counter() - start))
        with _all_labelled(sim):
            recorded, recorded_float = _recorded((simulated, in_float), repeats)
    ops = {
        sim.graph.calls[op.call].name: op.kind for op in sim.graph.ops if op.call >= 0
    }
    calls = [
        CallTime(
            name,
            ops.get(name, ""),
            event.count,
            event.milliseconds,
            recorded_float.calls[name].milliseconds,
            event.inside,
        )
        for name, event in recorded.calls.items()
    ]
    sites = [
        SiteTime(name, event.count, event.milliseconds)
        for name, event in recorded.sites.items()
    ]
    return ForwardProfile(
        statistics.median(times[0]),
        statistics.median(times[1]),
        sorted(calls, key=lambda call: -call.simulated),
        sorted(sites, key=lambda site: -site.milliseconds),
    )


@contextlib.contextmanager
def _all_labelled(sim: QuantizationSimModel) -> Iterator[None]:
    """Gives every quantizer a label of its own: those that a user put in have none, or
    that of the quantizer they are a copy of.
    """
    sites = {id(s.quantizer): s.name for s in reversed(sim.sites())}
    quantizers = list(sim.named_quantizers())
    before = [quantizer.label for _, quantizer in quantizers]
    for name, quantizer in quantizers:
        if not quantizer.label or before.count(quantizer.label) > 1:
            quantizer.label = sites.get(id(quantizer), name)
    try:
        yield
    finally:
        for (_, quantizer), label in zip(quantizers, before, strict=True):
            quantizer.label = label


def _wait_for_devices() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass
class _Event:
    count: int = 0
    milliseconds: float = 0.0
    inside: float = 0.0  # of which in sites


class _Record:
    """Events of one forward, by name."""

    def __init__(self) -> None:
        self.calls: dict[str, _Event] = defaultdict(_Event)
        self.sites: dict[str, _Event] = defaultdict(_Event)

    def add(self, event: Any) -> None:
        milliseconds = event.cpu_time_total / 1e3
        if event.name.startswith(_CALL):
            table, name = self.calls, event.name.removeprefix(_CALL)
        elif event.name.startswith(SITE_EVENT):
            table, name = self.sites, event.name.removeprefix(SITE_EVENT)
            parent = event.cpu_parent
            while parent is not None and not parent.name.startswith(_CALL):
                if parent.name.startswith(SITE_EVENT):
                    return  # a part of that site's event
                parent = parent.cpu_parent
            if parent is not None:
                call = self.calls[parent.name.removeprefix(_CALL)]
                call.inside += milliseconds
        else:
            return
        table[name].count += 1
        table[name].milliseconds += milliseconds


def _recorded(runs: tuple[Callable[[], None], ...], repeats: int) -> list[_Record]:
    """Medians of the events of several recorded forwards of each of the runs."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        # The first ones warm the profiler up: it makes memory for its events.
        for number in range(-1, repeats):
            for index, run in enumerate(runs):
                with torch.profiler.record_function(f"{_FORWARD}{index} {number}"):
                    run()
                    _wait_for_devices()
    records = {(i, k): _Record() for i in range(len(runs)) for k in range(-1, repeats)}
    for event in profiler.events() or ():
        top = event
        while top.cpu_parent is not None:
            top = top.cpu_parent
        if top is not event and top.name.startswith(_FORWARD):
            index, number = top.name.removeprefix(_FORWARD).split()
            records[int(index), int(number)].add(event)
    return [
        _medians([records[index, number] for number in range(repeats)])
        for index in range(len(runs))
    ]


def _medians(records: list[_Record]) -> _Record:
    """One record whose events have the median times of the same ones in others."""
    merged = records[0]
    for kind in ("calls", "sites"):
        tables = [getattr(record, kind) for record in records]
        for name, event in getattr(merged, kind).items():
            event.milliseconds = statistics.median(t[name].milliseconds for t in tables)
            event.inside = statistics.median(t[name].inside for t in tables)
    return merged
