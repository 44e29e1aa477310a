# SPDX-License-Identifier: BSD-3-Clause
"""The precisions of a simulation's quantizers, and whether they can run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from aimetpp import _C
from aimetpp.common.defs import CallbackFunc
from aimetpp.common.text import shortened
from aimetpp.quantization import QuantizerBase
from aimetpp.quantsim.bank import QuantizerBank
from aimetpp.quantsim.rank_statistics import merge_statistics


def calibration_callback(callback: Any, argument: Any) -> CallbackFunc:
    """What `compute_encodings` calls with the model or session.

    Raises:
        TypeError: not callable.
    """
    if not callable(callback):
        raise TypeError(
            "compute_encodings: forward_pass_callback must be callable, got "
            f"{type(callback).__name__}"
        )
    return CallbackFunc(callback, argument)


class PrecisionMethods:
    """The part of a simulation that reads and sets precisions."""

    quant_scheme: str
    config_name: str
    graph: _C.OpGraph
    placement: _C.Placement
    _bank: QuantizerBank
    _pinned: set[int]

    def uncalibrated(self) -> list[str]:
        """Names of the quantizers that are on and have no range yet."""
        return [
            entry.label
            for entry in self._bank.entries
            if (current := entry.current()) is not None and not current.is_initialized()
        ]

    def is_calibrated(self) -> bool:
        """True where every quantizer that is on can run."""
        return not self.uncalibrated()

    def _finish_calibration(self) -> None:
        """For `compute_encodings` to call at its end: warns its caller of quantizers
        that saw nothing.
        """
        self._bank.forget_unobserved()
        missing = self.uncalibrated()
        if missing:
            warnings.warn(
                f"compute_encodings: no data reached {len(missing)} quantizers, which "
                f"stay uncalibrated: {shortened(missing)}",
                RuntimeWarning,
                stacklevel=3,
            )

    def _warn_of_unsupported_ops(self, argument: str, stacklevel: int) -> None:
        """For constructors: warns of ops for which the config has no kernel.

        Args:
            argument: the constructor's name for the bit-width of activations.
            stacklevel: that of the caller of the constructor, seen from here.
        """
        found = _C.find_unsupported_ops(self.graph, self.placement, self.precisions())
        if found:
            ops = [f"{self.graph.ops[op].name}: {problem}" for op, problem in found]
            warnings.warn(
                f"QuantizationSimModel: config {self.config_name!r} has no kernel for "
                f"{len(found)} ops at these bit-widths; set others for them, by mixed "
                f"precision or {argument}: {shortened(ops)}",
                RuntimeWarning,
                stacklevel=stacklevel,
            )

    def merge_calibration(self) -> None:
        """Takes in what the other ranks of torch.distributed have observed, so that
        each rank has the ranges of the data of all.

        Every rank calls this after `compute_encodings` on its share of the data. Ranges
        are then equal in all of them: of extremes (min-max) those of one process that
        sees all data, of histograms within a bin of those. Waits for all ranks.

        Raises:
            RuntimeError: there is no other rank, or one has died; ranks have simulated
                different models.
            ValueError: ranks have different schemes or shapes.
        """
        self._bank.adopt_standing()
        merge_statistics(
            {
                entry.label: entry.integer
                for entry in self._bank.entries
                if entry.kind != "param"
            }
        )

    def set_percentile_value(self, percentile_value: float) -> None:
        """The percentile, 50 to 100, that the "percentile" scheme cuts at. Calibrated
        ranges follow at once; those set by hand, loaded or trained stay.

        Raises:
            TypeError: not a number.
            ValueError: outside that range, or another scheme.
        """
        if isinstance(percentile_value, bool | str | bytes):
            raise TypeError(
                f"percentile must be a number, got {type(percentile_value).__name__}"
            )
        if not 50 <= percentile_value <= 100:
            raise ValueError(
                f"percentile must be between 50 and 100, got {percentile_value}"
            )
        if self.quant_scheme != "percentile":
            raise ValueError(
                "set_percentile_value has no effect with quant_scheme "
                f"{self.quant_scheme!r}; use quant_scheme='percentile'"
            )
        self._bank.adopt_standing()
        for entry in self._bank.entries:
            integer = entry.integer
            is_calibrated = integer.follows_statistics()
            integer.percentile = float(percentile_value)
            if is_calibrated:
                integer.restore_range()

    def unplaced_quantizers(self) -> dict[int, QuantizerBase]:
        """By site, the quantizers that a user put where the config has none: the
        forward uses them, but no precision set through the simulation reaches them.
        """
        return self._bank.unplaced()

    @property
    def quantizers_by_index(self) -> list[QuantizerBase]:
        """One quantizer per entry of the placement, on or off."""
        return self._bank.modules()

    def precisions(self) -> list[str]:
        """The precision of each placement entry: "int8", "fp16", "fp32" for off."""
        return self._bank.precisions()

    def apply_precisions(self, precisions: list[str]) -> None:
        """Sets the precision of every placement entry. Ranges of new bit-widths come
        from kept statistics, those of parameters that changed since from what they
        hold now; a range that was set by hand, loaded or trained keeps its ends.

        Quantizers that a user put into the model are changed like the others.

        Raises:
            ValueError: a wrong count, or an unknown precision; a site whose precision
                is to change, where what a user put in allows none. Nothing is changed
                then.
        """
        if len(precisions) != len(self._bank.entries):
            raise ValueError(
                f"apply_precisions: {len(self._bank.entries)} precisions are required, "
                f"got {len(precisions)}"
            )
        parsed = [_C.parse_precision(precision) for precision in precisions]
        self._bank.check_standing(parsed)
        self._bank.adopt_standing()
        for index, precision in enumerate(parsed):
            if self._bank.precision(index) != precision:
                self._bank.set_precision(index, precision)

    @contextlib.contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """An exception that leaves the context takes precisions, ranges and pins back
        to what they were on entering.
        """
        restore = self._bank.snapshot()
        pinned = set(self._pinned)
        try:
            yield
        except BaseException:
            restore()
            self._pinned = pinned
            raise
