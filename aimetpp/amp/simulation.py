# SPDX-License-Identifier: BSD-3-Clause
"""What a search needs of a simulation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from aimetpp import _C


class Replay(Protocol):
    """What serves the forwards of a simulation's model from kept activations.

    Attributes:
        around_float: what is kept is full precision, and stays; else the last forward.
        given_up: why nothing is replayed any more; "" while it is.
        replayed: forwards that replayed something.
        strays: calls whose inputs changed for a reason that is not known.
    """

    around_float: bool
    given_up: str
    replayed: int
    strays: int

    @property
    def num_refused(self) -> int:
        """How often something was not kept, or dropped, for lack of room."""

    def batch_by_batch(self) -> AbstractContextManager[Callable[[], None]]:
        """Within the context a batch is recorded at once, until what the context gives
        is called.
        """


@runtime_checkable
class Simulation(Protocol):
    """The part of QuantizationSimModel that automatic mixed precision uses.

    A quantizer's index is its place in `placement.quantizers`.
    """

    model: Any
    graph: _C.OpGraph
    placement: _C.Placement
    dummy_input: Any

    @property
    def runner(self) -> Any:
        """What callbacks are called with: the model, or a session that runs it."""

    @property
    def group_class(self) -> Any:
        """The NamedGroup that names its quantizers."""

    @property
    def callback_factory(self) -> Any:
        """The EvalCallbackFactory whose metrics know its batches and outputs."""

    @property
    def quantizers_by_index(self) -> Sequence[Any]:
        """One quantizer for each index, on or off."""

    def precisions(self) -> list[str]:
        """The precision of each index: "int8", "fp16", "fp32" for off."""

    def apply_precisions(self, precisions: list[str]) -> None:
        """Sets the precision of each index."""

    def pinned_quantizers(self) -> frozenset[int]:
        """Indices whose precision a search must leave alone."""

    def quantizers_off(self) -> AbstractContextManager[None]:
        """Within the context the model computes in full precision."""

    def replaying(
        self, memory_budget: int | None = None
    ) -> AbstractContextManager[Replay]:
        """Within the context forwards of the model compute only what changed."""

    def uncalibrated(self) -> list[str]:
        """Names of the quantizers that are on and have no range."""

    def compute_encodings(self, forward_pass_callback: Callable[..., Any]) -> None:
        """Calibrates."""

    def fingerprint(self) -> str:
        """Changes with graph, weights, config and calibration."""

    def export(self, path: str | os.PathLike[str], filename_prefix: str) -> None:
        """Writes model and encodings into a folder."""
