# SPDX-License-Identifier: BSD-3-Clause
"""The uniform integer grid over a range: its steps, its encoding, the ops on it."""

from __future__ import annotations

from typing import Any

import torch

from aimetpp import _C
from aimetpp.quantization.blocks import Blocks
from aimetpp.quantization.learning import LearnableRange

# From here on float32 cannot count the steps of a grid, and the kernels compute in
# float64 (csrc/core/quant_math.h).
_FIRST_WIDE_BITWIDTH = 22


class AffineGrid(LearnableRange):
    """What follows from a range and a bit-width: scale, offset and grid values.

    The fields are those of AffineQuantizerBase, which decides on them.
    """

    blocks: Blocks | None
    channel_axis: int | None
    strict_symmetric: bool
    _symmetric: bool  # as asked for
    _signed: bool  # whether the grid has negative integers
    _bitwidth: int
    _initialized: bool
    _overwrite: bool
    fixed_min: float | None
    fixed_max: float | None

    # -- grid ---------------------------------------------------------------

    @property
    def precision(self) -> str:
        return f"int{self._bitwidth}"

    def _set_grid(self, bitwidth: int, signed: bool) -> None:
        if not isinstance(bitwidth, int) or isinstance(bitwidth, bool):
            raise TypeError(
                f"{self._describe()}: bitwidth must be an int from 2 to 32, got "
                f"{bitwidth!r}"
            )
        qmin, qmax = _C.integer_grid(bitwidth, self._grid_symmetry(signed))
        self._bitwidth = bitwidth
        self._signed = signed
        with torch.no_grad():
            self.grid[0], self.grid[1] = qmin, qmax

    def _grid_symmetry(self, signed: bool) -> str:
        if not signed:
            return "asymmetric"
        return "strict_symmetric" if self.strict_symmetric else "symmetric"

    # -- ops ----------------------------------------------------------------

    def _arguments(
        self, symmetric: bool | None = None, x: torch.Tensor | None = None
    ) -> tuple[Any, ...]:
        """What the ops take after `x`; `symmetric` in place of the grid's."""
        signed = self._signed if symmetric is None else symmetric
        return *self.ends(x), self.grid, signed, self.channel_axis

    def _require_range(self) -> None:
        if not self._initialized:
            raise RuntimeError(
                f"{self._describe()} has no range yet: run sim.compute_encodings(...) "
                "with data that reaches it, or quantizer.set_range(min, max), first"
            )

    def grid_values(self, q: torch.Tensor) -> torch.Tensor:
        """The real numbers that integers stand for: (q + offset) * scale.

        Args:
            q: any shape that the quantizer takes.
        """
        self._require_range()
        return self._run(torch.ops.aimetpp.dequantize, q)

    def _run(self, op: Any, x: torch.Tensor) -> torch.Tensor:
        """`op` on `x`, any shape, or one that can be cut into the blocks."""
        if self.blocks is None:
            return op(x, *self._arguments(x=x))
        try:
            blocks = self.blocks.split(x)
        except ValueError as error:
            raise ValueError(f"{self._describe()}: {error}") from error
        return self.blocks.join(op(blocks, *self._arguments(x=x)), x.shape)

    @torch.no_grad()
    def follow(self, least: torch.Tensor, largest: torch.Tensor) -> None:
        """Moves the range by the momentum towards that of data with these extremes.

        Ends that the config fixes, and ranges that must not be overwritten, stay.

        Args:
            least: a scalar tensor; as `largest` infinite where there were no values,
                which changes nothing.
            largest: the same.
        """
        if not self._overwrite:
            return
        empty = least > largest
        low, high = least.clamp(max=0), largest.clamp(min=0)
        if self._symmetric and self._signed:
            step = torch.maximum(low / self.grid[0], high / self.grid[1])
            low, high = step * self.grid[0], step * self.grid[1]
        elif self._symmetric:
            low = torch.zeros_like(low)
        for end, value, fixed in (
            (self.min, low, self.fixed_min),
            (self.max, high, self.fixed_max),
        ):
            if fixed is None:
                end.copy_(torch.where(empty, end, end.lerp(value, self._momentum)))

    # -- encoding -----------------------------------------------------------

    def _range_offset(self) -> torch.Tensor:
        return 0 - self._zero_point(self._signed)

    def _zeros(self) -> torch.Tensor:
        wide = self._bitwidth >= _FIRST_WIDE_BITWIDTH
        return torch.zeros_like(self.min, dtype=torch.float64 if wide else None)

    def _zero_point(self, symmetric: bool) -> torch.Tensor:
        """The integer that zero becomes, of `min`'s shape: minus the offset."""
        return self._on_ranges(torch.ops.aimetpp.quantize, self._zeros(), symmetric)

    def _value_of(self, q: torch.Tensor) -> torch.Tensor:
        """The real numbers that an integer stands for, of `min`'s shape."""
        return self._on_ranges(torch.ops.aimetpp.dequantize, self._zeros() + q)

    def _on_ranges(
        self, op: Any, values: torch.Tensor, symmetric: bool | None = None
    ) -> torch.Tensor:
        """`op` on one number for each range; both of `min`'s shape."""
        if self.blocks is not None:
            values = values.flatten()
        return op(values, *self._arguments(symmetric)).reshape(self.min.shape)

    def get_scale(self) -> torch.Tensor | None:
        """Step of the grid, of `min`'s shape; None before calibration.

        float32, as the other tensors here; float64 for grids of 22 bits and more.
        """
        if not self._initialized:
            return None
        # The real number one step above zero. Scale does not depend on offset: with
        # the symmetric one, which no range moves, all of the gradient is scale's.
        one = self._zero_point(symmetric=True).detach() + 1
        return self._on_ranges(torch.ops.aimetpp.dequantize, one, symmetric=True)

    def get_offset(self) -> torch.Tensor | None:
        """Offset of the grid: value = (q + offset) * scale; None before calibration."""
        return self._range_offset() if self._initialized else None

    def get_min(self) -> torch.Tensor | None:
        """Lowest value of the grid: scale * (offset + qmin)."""
        return self._value_of(self.grid[0]) if self._initialized else None

    def get_max(self) -> torch.Tensor | None:
        """Highest value of the grid: scale * (offset + qmax)."""
        return self._value_of(self.grid[1]) if self._initialized else None

    def get_encodings(self) -> dict[str, Any] | None:
        """The encoding as plain numbers; None before calibration.

        Raises:
            ValueError: the range is not finite.
        """
        if not self._initialized:
            return None
        symmetry = self._grid_symmetry(self._signed)
        low, high = self.ends()
        ends = zip(low.flatten().tolist(), high.flatten().tolist(), strict=True)
        try:
            encodings = [
                _C.encoding_of_range(low, high, self._bitwidth, symmetry)
                for low, high in ends
            ]
        except ValueError as error:
            raise ValueError(f"{self._describe()}: {error}") from error
        return {
            "dtype": "int",
            "bitwidth": self._bitwidth,
            "precision": self.precision,
            "is_symmetric": self._symmetric,
            "min": [encoding.min for encoding in encodings],
            "max": [encoding.max for encoding in encodings],
            "scale": [encoding.scale for encoding in encodings],
            "offset": [encoding.offset for encoding in encodings],
        }
