# SPDX-License-Identifier: BSD-3-Clause
"""Between the search engine and a simulation: sets an assignment, asks a callback."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

from aimetpp.amp.cache import EvaluationCache
from aimetpp.amp.callbacks import score_of
from aimetpp.amp.quantizer_groups import GroupMembers
from aimetpp.amp.simulation import Simulation

PHASES = {
    "sensitivity": "eval_callback_for_phase1",
    "front": "eval_callback_for_phase2",
    "convert": "eval_callback_for_phase2",
}
# Phases 2 and 3 have one metric. Each keeps its own scores, so that what phase 3 has
# measured does not turn up in phase 2's list of a later run.
_SAME_METRIC = {"front": "convert", "convert": "front"}
OFF = -1


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
    """

    def __init__(
        self,
        sim: Simulation,
        state: SimState,
        groups: list[GroupMembers],
        candidates: list[tuple[str, str]],
        callbacks: dict[str, Callable[[Any], Any]],
        cache: EvaluationCache,
    ) -> None:
        self._sim = sim
        self._state = state
        self._groups = groups
        self._candidates = candidates
        self._callbacks = callbacks
        self._cache = cache
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
        """The score, from the cache or the callback."""
        known = self._cache.get(phase, assignment)
        if known is not None:
            return known
        measured = self._cache.get(_SAME_METRIC.get(phase, phase), assignment)
        if measured is not None:
            self._cache.put(phase, assignment, measured)
            return measured
        self._state.apply(self.precisions(phase, assignment))
        start = time.monotonic()
        self.evaluations[phase] += 1
        score = score_of(self._callbacks[phase], self._sim.runner, PHASES[phase])
        self.seconds[phase] += time.monotonic() - start
        if not math.isnan(score):  # the engine says what it belongs to
            self._cache.put(phase, assignment, score)
        return score

    def known(self, phase: str, assignment: list[int]) -> float | None:
        """The score if it is in the cache."""
        return self._cache.get(phase, assignment)

    def finish(self, assignment: list[int]) -> None:
        """Leaves the simulation at an assignment."""
        self._state.apply(self.precisions("front", assignment))
