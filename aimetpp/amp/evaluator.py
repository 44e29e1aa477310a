# SPDX-License-Identifier: BSD-3-Clause
"""Between the search engine and a simulation: sets an assignment, asks a callback."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from aimetpp.amp.cache import EvaluationCache
from aimetpp.amp.callbacks import score_of
from aimetpp.amp.evaluation import Metric
from aimetpp.amp.metric_identity import plain_name
from aimetpp.amp.progress import Progress
from aimetpp.amp.quantizer_groups import GroupMembers
from aimetpp.amp.simulation import Replay, Simulation
from aimetpp.common.defs import CallbackFunc
from aimetpp.common.inference import device_of
from aimetpp.common.shared_work import SharedWork
from aimetpp.common.text import json_number

PHASES = {
    "sensitivity": "eval_callback_for_phase1",
    "front": "eval_callback_for_phase2",
    "convert": "eval_callback_for_phase2",
}
# Phases 2 and 3 have one metric. Each keeps its own scores, so that what phase 3 has
# measured does not turn up in phase 2's list of a later run.
_SAME_METRIC = {"front": "convert", "convert": "front"}
OFF = -1
# A batch is recorded when it comes again.
NUM_WARM = 2
# Evaluations that go on batch by batch together: each batch is recorded once for all of
# them, which costs about one forward more, and this many are lost where the process is
# killed.
STREAM_SIZE = 16


class SimState:
    """Precisions and ranges of a simulation as they were, to put them back.

    From here on the parameters that changed since calibration have the ranges of what
    they hold now. A range that is not what calibration yields (set by hand, loaded,
    trained) keeps its ends through changes of precision, but for rounding where a
    scale is learnt; on return to its precision it is put back to the last bit.
    """

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self.precisions: list[str] = sim.precisions()
        self._saved: list[tuple[Any, Any]] = []
        self._custom: dict[int, tuple[Any, Any, Any]] = {}
        for index, quantizer in enumerate(sim.quantizers_by_index):
            if not self.precisions[index].startswith("int"):
                continue
            self._saved.append((quantizer, quantizer.state()))
            quantizer.renew_range()
            if quantizer.is_initialized() and not quantizer.follows_statistics():
                ends = (end.detach().clone() for end in (quantizer.min, quantizer.max))
                self._custom[index] = (quantizer, *ends)

    def fingerprint(self) -> str:
        """Changes with ranges that calibration did not make."""
        digest = hashlib.sha256()
        for index, (_, low, high) in sorted(self._custom.items()):
            text = (index, self.precisions[index], low.tolist(), high.tolist())
            digest.update(repr(text).encode())
        return digest.hexdigest()[:16]

    def apply(self, precisions: list[str]) -> None:
        """Sets every quantizer's precision."""
        before = self._sim.precisions()
        self._sim.apply_precisions(precisions)
        for index, (quantizer, low, high) in self._custom.items():
            if before[index] != precisions[index] == self.precisions[index]:
                quantizer.set_range(low, high)

    def restore(self) -> None:
        """Puts back precisions and ranges."""
        self._sim.apply_precisions(self.precisions)
        for quantizer, state in self._saved:
            quantizer.set_state(state)


class SimEvaluator:
    """The engine's evaluator over a simulation, its callbacks and the cache.

    Args:
        sim: the simulation.
        state: its precisions and ranges at the start.
        groups: those being searched; an assignment has a candidate index for each.
        candidates: (activation, param) precision names.
        callbacks: by phase.
        cache: of scores.
        replay: what serves the forwards of the simulation's model.
        work: shared with other ranks; None: all is evaluated here.
        progress: told of evaluations that are made before they are asked for one by
            one: phase, done, expected.
    """

    def __init__(
        self,
        sim: Simulation,
        state: SimState,
        groups: list[GroupMembers],
        candidates: list[tuple[str, str]],
        callbacks: dict[str, Callable[[Any], Any]],
        cache: EvaluationCache,
        replay: Replay,
        work: SharedWork | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._sim = sim
        self._replay = replay
        self._state = state
        self._groups = groups
        self._candidates = candidates
        self._callbacks = callbacks
        self._cache = cache
        self._work = work
        self._progress = progress
        # Phases in which this rank has yet to show that it scores like the others.
        self._unproven = {"sensitivity", "front"} if cache.differing else set()
        self._finished = dict.fromkeys(PHASES, 0)
        self.evaluations = dict.fromkeys(PHASES, 0)
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def precisions(self, phase: str, assignment: list[int]) -> list[str]:
        """One precision per quantizer.

        Quantizers that are not searched keep theirs in phase 2, and are off where a
        group is measured alone and in full precision.
        """
        alone = phase == "sensitivity" or all(index == OFF for index in assignment)
        start = self._state.precisions
        precisions = ["fp32"] * len(start) if alone else list(start)
        for members, index in zip(self._groups, assignment, strict=True):
            off = ("fp32", "fp32")
            activation, param = off if index == OFF else self._candidates[index]
            for quantizer in members.activation_quantizers:
                precisions[quantizer] = activation
            for quantizer in members.param_quantizers:
                precisions[quantizer] = param
        return precisions

    def evaluate(self, phase: str, assignment: list[int]) -> float:
        """The score, from the cache, the callback or another rank."""
        known = self._cache.get(phase, assignment)
        if known is None:
            (known,) = self._measure_all(phase, [assignment])
        return known

    def time(self, phase: str, assignment: list[int], keep: bool) -> float:
        """Seconds of an evaluation, which is made again where its score is known.

        Args:
            phase: of the search.
            assignment: what is evaluated.
            keep: it is one of the search's; its score is kept.
        """
        if keep and self._cache.get(phase, assignment) is None:
            before = self.seconds[phase]
            self.evaluate(phase, assignment)
            return self.seconds[phase] - before
        return float(self._call(phase, assignment)[1])

    def time_stream(
        self, phase: str, assignments: list[list[int]], keep: bool
    ) -> float:
        """Mean seconds of evaluations that go on batch by batch together.

        Args:
            phase: of the search; one that `can_stream`.
            assignments: what is evaluated.
            keep: they are the search's; scores that are not known yet are kept.
        """
        began = time.monotonic()
        scores = self._stream(phase, assignments)
        seconds = (time.monotonic() - began) / len(scores)
        for assignment, score in zip(assignments, scores, strict=True):
            if keep and self._cache.get(phase, assignment) is None:
                self._take(phase, {"calls": 1, "seconds": seconds, "score": score})
                if not math.isnan(score):  # the engine says what it belongs to
                    self._cache.put(phase, assignment, score)
        return seconds

    def can_stream(self, phase: str) -> bool:
        """True where the phase's metric leaves the loop over batches to the library,
        there are some, and the model shows no sign that the order of forwards counts.
        """
        metric = self._metric(phase)
        if self._work is not None or metric is None or metric.num_batches() < 2:
            return False
        return not self._replay.given_up and self._replay.strays == 0

    @property
    def replayed(self) -> int:
        """Forwards so far that replayed something."""
        return self._replay.replayed

    @property
    def may_replay(self) -> bool:
        """False where every forward computes everything."""
        return not self._replay.given_up

    @property
    def num_refused(self) -> int:
        """How often an activation was not kept for lack of room."""
        return self._replay.num_refused

    @property
    def num_ranks(self) -> int:
        """Processes that share the evaluations."""
        return 1 if self._work is None else self._work.size

    @property
    def device(self) -> torch.device:
        """Of the model."""
        return device_of(self._sim.model)

    @property
    def metric_names(self) -> dict[str, str]:
        """By phase, what errors call the callback."""
        return {phase: plain_name(func) for phase, func in self._callbacks.items()}

    def count_known(self, phase: str) -> int:
        """Scores of a phase in the cache."""
        return self._cache.count(phase)

    def prepare(self, phase: str, assignments: list[list[int]]) -> None:
        """Puts scores into the cache that the engine will ask for: all of them where
        ranks share the work, or where the activations of all batches do not fit into
        the memory budget and those of one batch may.
        """
        wanted = [a for a in assignments if self._cache.get(phase, a) is None]
        if self._work is None:
            self._prepare_stream(phase, wanted)
            return
        total = self._finished[phase] + len(wanted)
        scores = self._measure_all(phase, wanted)
        for done in range(self._finished[phase], total):
            if self._progress is not None:
                self._progress(phase, done, total)
            next(scores)

    def _prepare_stream(self, phase: str, wanted: list[list[int]]) -> None:
        other = _SAME_METRIC.get(phase, phase)
        wanted = [a for a in wanted if self._cache.get(other, a) is None]
        if len(wanted) <= NUM_WARM or not self.can_stream(phase):
            return
        total = self._finished[phase] + len(wanted)
        refused = self._replay.num_refused
        for assignment in wanted[:NUM_WARM]:
            self._report(phase, total)
            self.evaluate(phase, assignment)
        if self._replay.num_refused == refused or not self.can_stream(phase):
            return
        for start in range(NUM_WARM, len(wanted), STREAM_SIZE):
            self._report(phase, total)
            chunk = wanted[start : start + STREAM_SIZE]
            self.time_stream(phase, chunk, keep=True)

    def _report(self, phase: str, total: int) -> None:
        if self._progress is not None:
            self._progress(phase, self._finished[phase], total)

    def _metric(self, phase: str) -> Metric | None:
        """The callback, where it is one of the library's metrics."""
        callback = self._callbacks[phase]
        func = callback.func if isinstance(callback, CallbackFunc) else callback
        return func if isinstance(func, Metric) else None

    def _stream(self, phase: str, assignments: list[list[int]]) -> list[float]:
        metric = self._metric(phase)
        assert metric is not None
        settings = [
            partial(self._state.apply, self.precisions(phase, assignment))
            for assignment in assignments
        ]
        self._replay.around_float = phase == "sensitivity"
        with self._replay.batch_by_batch() as begin_batch:
            return metric.stream(self._sim, settings, begin_batch)

    def _measure_all(self, phase: str, assignments: list[list[int]]) -> Iterator[float]:
        """Scores that are not in the cache, in any order; then they are."""
        if self._work is None:
            for assignment in assignments:
                yield self._take(phase, self._measure(phase, assignment))
            return
        if phase in self._unproven and assignments:
            self._prove(phase, assignments[0])
        keys = [_key(phase, assignment) for assignment in assignments]
        for index, text in self._work.obtain_all(
            keys, lambda index: json.dumps(self._measure(phase, assignments[index]))
        ):
            measured = json.loads(text)
            score = self._take(phase, measured)
            if not math.isnan(score):
                self._cache.remember(phase, assignments[index], score)
            yield score

    def _prove(self, phase: str, assignment: list[int]) -> None:
        """Scores what another rank has scored, before this one's scores count.

        Raises:
            RuntimeError: the scores differ.
        """
        assert self._work is not None
        callback = self._callbacks[phase]
        self._unproven -= {p for p in PHASES if self._callbacks[p] is callback}
        key, own = _key(phase, assignment), []

        def measure() -> str:
            own.append(self._measure(phase, assignment))
            return json.dumps(own[0])

        self._work.await_other(key, self._cache.opener)
        theirs = float(json.loads(self._work.obtain(key, measure))["score"])
        if own:  # nobody else is left; those who come later compare with this
            return
        score, _ = self._call(phase, assignment)
        if score != theirs and not (math.isnan(score) and math.isnan(theirs)):
            raise RuntimeError(
                f"{PHASES[phase]} ({plain_name(callback)}) gives {score} in rank "
                f"{self._work.rank} where another rank gets {theirs}, and it reads "
                f"other values there{self._cache.differing}: every rank must score "
                "the same samples, all of them; search with distributed=False where "
                "each scores its share"
            )

    def _take(self, phase: str, measured: dict[str, float]) -> float:
        self._finished[phase] += 1
        self.evaluations[phase] += int(measured["calls"])
        self.seconds[phase] += measured["seconds"]
        return float(measured["score"])

    def _measure(self, phase: str, assignment: list[int]) -> dict[str, Any]:
        """Score, calls of the callback, seconds in it; the score is in the journal."""
        score = self._cache.get(_SAME_METRIC.get(phase, phase), assignment)
        calls, seconds = 0, 0.0
        if score is None:
            score, seconds = self._call(phase, assignment)
            calls = 1
        if not math.isnan(score):  # the engine says what it belongs to
            self._cache.put(phase, assignment, score)
        return {"score": json_number(score), "calls": calls, "seconds": seconds}

    def _call(self, phase: str, assignment: list[int]) -> tuple[float, float]:
        """Score and seconds."""
        self._state.apply(self.precisions(phase, assignment))
        # Each group alone differs from full precision; each step from the last one.
        self._replay.around_float = phase == "sensitivity"
        start = time.monotonic()
        score = score_of(self._callbacks[phase], self._sim.runner, PHASES[phase])
        return score, time.monotonic() - start

    def known(self, phase: str, assignment: list[int]) -> float | None:
        """The score if it is in the cache."""
        return self._cache.get(phase, assignment)

    def finish(self, assignment: list[int]) -> None:
        """Leaves the simulation at an assignment."""
        self._state.apply(self.precisions("front", assignment))


def _key(phase: str, assignment: list[int]) -> str:
    """Of a piece of work."""
    return f"{phase} {assignment}"
