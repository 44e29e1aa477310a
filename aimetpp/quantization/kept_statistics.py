# SPDX-License-Identifier: BSD-3-Clause
"""What calibration keeps of a tensor, and the range that it yields."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from aimetpp import _C
from aimetpp.quantization.affine_grid import AffineGrid
from aimetpp.quantization.parameter_reference import ParameterReference


class KeptStatistics(AffineGrid):
    """The part of AffineQuantizerBase that observes tensors.

    Of a parameter it also remembers where it stands and a hash of what it held, so
    that a range for another bit-width is of what the parameter holds by then.
    """

    scheme: str
    percentile: float
    unsigned_symmetric: bool
    fixed_min: float | None
    fixed_max: float | None
    statistics: _C.Statistics | None
    # So many tensors of one forward share the range.
    tensors_per_forward: int
    _overwrite: bool
    # By bit-width, symmetry, scheme and percentile.
    _ranges: dict[tuple[Any, ...], tuple[torch.Tensor, torch.Tensor]]
    # What the statistics are of, where that is a parameter, and its content then.
    _parameter: ParameterReference | None
    _content: int

    def has_statistics(self) -> bool:
        """True where calibration left statistics, from which ranges of other
        bit-widths follow.
        """
        return self.statistics is not None and not self.statistics.empty

    def follows_statistics(self) -> bool:
        """True where the range is what the kept statistics yield; False where there
        are none, or it was set by hand, loaded or trained since.
        """
        if not self.has_statistics() or not self._initialized:
            return self.has_statistics()
        low, high, _ = self._range_of_statistics()
        return all(
            torch.equal(end.detach().cpu().flatten(), yielded)
            for end, yielded in ((self.min, low), (self.max, high))
        )

    def observe(self, x: torch.Tensor) -> None:
        """Adds `x` to the kept statistics.

        Raises:
            ValueError: `x` holds a NaN; the message names the quantizer.
        """
        if self.masked_below is not None:
            x = x[x > self.masked_below]
        if self.statistics is None:
            self.statistics = _C.Statistics.for_scheme(
                self.min.numel(), self.scheme, self.tensors_per_forward
            )
        try:
            if self.blocks is not None:
                x = self.blocks.split(x.detach())
            self.statistics.update(x, self.channel_axis)
        except ValueError as error:
            raise ValueError(f"{self._describe()}: {error}") from error
        self._ranges = {}

    def calibrate_on(self, parameter: ParameterReference) -> None:
        """Observes a parameter and sets its range. A later change of the bit-width
        looks whether it still holds the same.

        Raises:
            ValueError: it holds a NaN.
        """
        value = parameter.value()
        if value is None:
            return
        with self.compute_encodings():
            self.observe(value)
        self._parameter, self._content = parameter, parameter.content(value)

    def note_parameter(self) -> None:
        """What the parameter holds now counts as what was calibrated."""
        if self._parameter is not None:
            self._content = self._parameter.content(self._parameter.value())

    def _renew_statistics(self) -> None:
        """Observes a parameter again that changed since it was."""
        if self._parameter is None or not self._overwrite:
            return
        value = self._parameter.value()
        content = self._parameter.content(value)
        if value is None or content == self._content:
            return
        previous, self.statistics = self.statistics, None
        try:
            self.observe(value)
        except BaseException:
            self.statistics = previous
            raise
        self._content = content

    def largest_magnitude(self) -> torch.Tensor | None:
        """The largest magnitude of each range, which formats without an offset are
        scaled by; None where there is no range yet.

        Where the range comes from calibration it is that of all values seen, or with
        "percentile" of those within it, whatever the bit-width: the other schemes weigh
        clipping against steps of integers. Else it is the range's larger end.
        """
        if self.follows_statistics():
            self._renew_statistics()
            scheme = "percentile" if self.scheme == "percentile" else "min_max"
            assert self.statistics is not None
            ends = _C.ranges_from_statistics(
                self.statistics, scheme, 32, "asymmetric", self.percentile
            )
            low, high = self._within_fixed_ends(*ends)
        elif self._initialized:
            low, high = (end.detach().cpu().flatten() for end in self.ends())
        else:
            return None
        return torch.maximum(low.abs(), high.abs()).to(self.min.device)

    def take_statistics(self, statistics: _C.Statistics) -> None:
        """Sets the range that other statistics yield, and keeps them."""
        self.statistics = statistics
        self._ranges = {}
        self._set_range_from_statistics()

    @contextlib.contextmanager
    def compute_encodings(self) -> Iterator[None]:
        previous, self.statistics = self.statistics, None
        ranges = self._ranges
        self._observing = True
        try:
            yield
        except BaseException:
            self.statistics = previous
            raise
        finally:
            self._observing = False
        if self.statistics is None or self.statistics.empty:
            self.statistics = previous  # nothing came, or nothing but infinities
        else:
            # The same data again, as weights mostly are: nothing to search for.
            if self.statistics == previous:
                self._ranges = ranges
            self._set_range_from_statistics()

    def _symmetry(self) -> str:
        if self._symmetric and self.unsigned_symmetric:
            return "unsigned_symmetric"
        return self._grid_symmetry(self._symmetric)

    def _range_of_statistics(self) -> tuple[torch.Tensor, torch.Tensor, bool]:
        """What the statistics yield: both ends, one element per channel, on the CPU,
        and whether the grid has negative integers.
        """
        assert self.statistics is not None
        key = (self._bitwidth, self._symmetry(), self.scheme, self.percentile)
        if key not in self._ranges:
            self._ranges[key] = _C.ranges_from_statistics(
                self.statistics, self.scheme, self._bitwidth, key[1], self.percentile
            )
        low, high = self._ranges[key]
        # One grid for all channels; without sign where no channel needs one.
        signed = self._symmetric and bool((low < 0).any())
        return *self._within_fixed_ends(low, high), signed

    def _within_fixed_ends(
        self, low: torch.Tensor, high: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.fixed_min is not None:
            low = torch.full_like(low, self.fixed_min)
        if self.fixed_max is not None:
            high = torch.full_like(high, self.fixed_max)
        return low, high

    def _set_range_from_statistics(self) -> None:
        """Sets the range that the statistics yield, unless it may not be changed."""
        raise NotImplementedError
