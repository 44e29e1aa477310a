# SPDX-License-Identifier: BSD-3-Clause
"""Mixed precision by one metric: narrow group after group until a target breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aimetpp import _C
from aimetpp.amp.mixed_precision_algo import GreedyMixedPrecisionAlgo, Session
from aimetpp.amp.simulation import Simulation


class NarrowingAlgo(GreedyMixedPrecisionAlgo):
    """The search behind `auto_mixed_precision`, which documents the arguments.

    Args:
        sim: the simulation.
        candidates: the wide one first.
        evaluate: returns a score of the model.
        skip_breaking, max_narrowed: as in `auto_mixed_precision`.
        **options: of GreedyMixedPrecisionAlgo.

    Raises:
        ValueError: a group for which the config has no kernel at the wide candidate;
            else as there.
    """

    def __init__(
        self,
        sim: Simulation,
        candidates: Sequence[Any],
        evaluate: Callable[[Any], Any],
        skip_breaking: bool,
        max_narrowed: int | None,
        **options: Any,
    ) -> None:
        super().__init__(
            sim,
            None,
            candidates,
            evaluate,
            evaluate,
            convert_op_reduction=False,
            **options,
        )
        self._skip_breaking = skip_breaking
        self._max_narrowed = max_narrowed
        for members, supported in zip(self._members, self._supported, strict=True):
            if 0 not in supported:
                raise ValueError(
                    f"wide={self._candidates[0]} is not among the kernels that the "
                    f"config gives group {members.group}; exclude it, or use "
                    "use_all_amp_candidates=True"
                )

    def _find(
        self, drop: float | None, options: _C.SearchOptions, session: Session
    ) -> _C.SearchResult:
        del options  # the walk goes one step at a time
        return _C.narrowing_search(
            session.problem,
            drop,
            self._skip_breaking,
            self._max_narrowed,
            session.evaluator.evaluate,
            session.progress,
            session.evaluator.known,
            session.evaluator.prepare,
            session.evaluator.metric_names,
        )
