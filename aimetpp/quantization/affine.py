# SPDX-License-Identifier: BSD-3-Clause
"""Quantization to a uniform integer grid."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from aimetpp import _C
from aimetpp.quantization.base import QuantizerBase

# Bins that a scheme's range search reads, and how far later batches may extend
# the first batch's range (in half-ranges on each side), as the schemes define.
_NUM_BINS = {"min_max": 0, "tf_enhanced": 512, "percentile": 2048, "mse": 2048}
_MAX_GROWTH = {"tf_enhanced": 3.0}


class AffineQuantizerBase(QuantizerBase):
    """State of a quantizer with an integer grid.

    `min` and `max` are the learnable ends of the range; scale and offset follow
    from them. Bit-width and grid live in a tensor, so that changing them never
    recompiles a compiled model.

    Args:
        shape: shape of `min` and `max`: () for per-tensor, (C, 1, 1, 1)-like, with
            one dimension larger than 1, for per-channel.
        bitwidth: 2 to 32.
        symmetric: grid around zero instead of from zero up.
        strict_symmetric: as many steps below zero as above.
        unsigned_symmetric: where calibration sees no negative value, the symmetric
            grid becomes [0, 2^bitwidth - 1].
        scheme: "min_max", "tf_enhanced", "percentile" or "mse": how calibration
            chooses the range.
        channel_axis: the axis of per-channel ranges; by default the one dimension
            of `shape` that is larger than 1.

    Raises:
        ValueError: bit-width out of range, more than one dimension larger than 1.
    """

    min: torch.nn.Parameter
    max: torch.nn.Parameter
    grid: torch.Tensor

    def __init__(
        self,
        shape: Sequence[int],
        bitwidth: int,
        symmetric: bool,
        *,
        strict_symmetric: bool = False,
        unsigned_symmetric: bool = False,
        scheme: str = "min_max",
        channel_axis: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        wide = [axis for axis, size in enumerate(self.shape) if size > 1]
        if len(wide) > 1:
            raise ValueError(
                f"{type(self).__name__}: shape must have at most one dimension larger "
                f"than 1 (the channels), got {self.shape}"
            )
        if scheme not in _NUM_BINS:
            raise ValueError(
                f"{type(self).__name__}: scheme must be one of {sorted(_NUM_BINS)}, "
                f"got {scheme!r}"
            )
        if channel_axis is None and wide:
            channel_axis = wide[0]
        # The axis of per-channel ranges; None where there is one range only.
        self.channel_axis = channel_axis if wide else None
        self.symmetric = symmetric
        self.strict_symmetric = strict_symmetric
        self.unsigned_symmetric = unsigned_symmetric
        self.scheme = scheme
        self.percentile = 100.0
        self.statistics: _C.Statistics | None = None
        # Ends of the range fixed by the config's encoding_constraints.
        self.fixed_min: float | None = None
        self.fixed_max: float | None = None
        self._overwrite = True
        self._ranges: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
        # NaN marks a range that calibration has not set yet; it survives
        # state_dict, unlike a Python flag.
        nan = torch.full(self.shape, float("nan"))
        self.min = torch.nn.Parameter(nan)
        self.max = torch.nn.Parameter(nan.clone())
        self.register_buffer("grid", torch.zeros(2, dtype=torch.int64))
        self._initialized = False
        self._bitwidth = 0
        self._set_grid(bitwidth, symmetric)

    # -- grid ---------------------------------------------------------------

    @property
    def bitwidth(self) -> int:
        """Bits of the grid. Setting it gives a calibrated quantizer the range that
        its kept statistics yield at the new bit-width.
        """
        return self._bitwidth

    @bitwidth.setter
    def bitwidth(self, bitwidth: int) -> None:
        self._set_grid(bitwidth, self.symmetric)
        if self.statistics is not None and not self.statistics.empty:
            self._set_range_from_statistics()

    @property
    def precision(self) -> str:
        return f"int{self._bitwidth}"

    def _set_grid(self, bitwidth: int, signed: bool) -> None:
        qmin, qmax = _C.integer_grid(bitwidth, signed)
        if self.strict_symmetric and signed:
            qmin = -qmax
        self._bitwidth = bitwidth
        self._signed = signed
        with torch.no_grad():
            self.grid[0], self.grid[1] = qmin, qmax

    # -- range --------------------------------------------------------------

    def is_initialized(self) -> bool:
        return self._initialized

    def set_range(
        self,
        min: float | torch.Tensor | Sequence[float],  # noqa: A002
        max: float | torch.Tensor | Sequence[float],  # noqa: A002
    ) -> None:
        """Sets the range by hand: numbers, or one value per channel.

        Raises:
            ValueError: a value that is not finite, min > max, or a wrong count.
        """
        low = torch.as_tensor(min, dtype=torch.float32).detach()
        high = torch.as_tensor(max, dtype=torch.float32).detach()
        for name, value in (("min", low), ("max", high)):
            if value.numel() not in (1, self.min.numel()):
                raise ValueError(
                    f"{self._describe()}: {name} must have 1 or {self.min.numel()} "
                    f"values, got {value.numel()}"
                )
            if not torch.isfinite(value).all():
                raise ValueError(f"{self._describe()}: {name} must be finite")
        if (low > high).any():
            raise ValueError(f"{self._describe()}: min must not be above max")
        self._write_range(low, high)

    def _write_range(self, low: torch.Tensor, high: torch.Tensor) -> None:
        with torch.no_grad():
            for parameter, value in ((self.min, low), (self.max, high)):
                value = value.to(parameter.device)
                parameter.copy_(
                    value.reshape(parameter.shape)
                    if value.numel() == parameter.numel()
                    else value.expand(parameter.shape)
                )
        self._initialized = True

    def allow_overwrite(self, allow: bool) -> None:
        """False keeps calibration and bit-width changes from changing the range."""
        self._overwrite = allow

    def reset(self) -> None:
        """Forgets range and statistics."""
        self.statistics = None
        self._ranges.clear()
        with torch.no_grad():
            self.min.fill_(float("nan"))
            self.max.fill_(float("nan"))
        self._initialized = False

    # -- calibration --------------------------------------------------------

    def observe(self, x: torch.Tensor) -> None:
        """Adds `x` to the kept statistics.

        Raises:
            ValueError: `x` holds a NaN; the message names the quantizer.
        """
        if self.statistics is None:
            self.statistics = _C.Statistics(
                num_channels=self.min.numel(),
                num_bins=_NUM_BINS[self.scheme],
                max_growth=_MAX_GROWTH.get(self.scheme, float("inf")),
            )
        try:
            self.statistics.update(x, self.channel_axis)
        except ValueError as error:
            raise ValueError(f"{self._describe()}: {error}") from error
        self._ranges.clear()

    @contextlib.contextmanager
    def compute_encodings(self) -> Iterator[None]:
        previous, self.statistics = self.statistics, None
        self._observing = True
        try:
            yield
        except BaseException:
            self.statistics = previous
            raise
        finally:
            self._observing = False
        if self.statistics is None:
            self.statistics = previous
        else:
            self._set_range_from_statistics()

    def _symmetry(self) -> str:
        if not self.symmetric:
            return "asymmetric"
        if self.unsigned_symmetric:
            return "unsigned_symmetric"
        return "strict_symmetric" if self.strict_symmetric else "symmetric"

    def _set_range_from_statistics(self) -> None:
        if not self._overwrite:
            return
        assert self.statistics is not None
        if self.unsigned_symmetric and self.symmetric:
            negative = any(low < 0 for low in self.statistics.mins)
            self._set_grid(self._bitwidth, negative)
        key = (self._bitwidth, self._symmetry(), self.scheme, self.percentile)
        if key not in self._ranges:
            self._ranges[key] = _C.ranges_from_statistics(
                self.statistics, self.scheme, self._bitwidth, key[1], self.percentile
            )
        ranges = self._ranges[key]
        low = torch.tensor([r[0] for r in ranges])
        high = torch.tensor([r[1] for r in ranges])
        if self.fixed_min is not None:
            low = torch.full_like(low, self.fixed_min)
        if self.fixed_max is not None:
            high = torch.full_like(high, self.fixed_max)
        self._write_range(low, high)

    # -- encoding -----------------------------------------------------------

    def _num_steps(self) -> float:
        return float(self.grid[1] - self.grid[0])

    def get_scale(self) -> torch.Tensor | None:
        """Step of the grid, of `min`'s shape; None before calibration."""
        if not self._initialized:
            return None
        steps = self._num_steps()
        smallest = min(torch.finfo(torch.float32).eps, 0.01 / steps)
        return ((self.max - self.min) / steps).clamp(min=smallest)

    def get_offset(self) -> torch.Tensor | None:
        """Offset of the grid: value = (q + offset) * scale; None before calibration."""
        scale = self.get_scale()
        if scale is None:
            return None
        qmin, qmax = self.grid.tolist()
        if self._signed:
            return torch.full_like(scale, -round((qmin + qmax) / 2))
        return (torch.round(self.min / scale) - qmin).clamp(-qmax, -qmin)

    def get_min(self) -> torch.Tensor | None:
        """Lowest value of the grid: scale * (offset + qmin)."""
        scale, offset = self.get_scale(), self.get_offset()
        if scale is None or offset is None:
            return None
        return scale * (offset + self.grid[0])

    def get_max(self) -> torch.Tensor | None:
        """Highest value of the grid: scale * (offset + qmax)."""
        scale, offset = self.get_scale(), self.get_offset()
        if scale is None or offset is None:
            return None
        return scale * (offset + self.grid[1])

    def get_encodings(self) -> dict[str, Any] | None:
        if not self._initialized:
            return None
        values = [self.get_min(), self.get_max(), self.get_scale(), self.get_offset()]
        low, high, scale, offset = (
            v.flatten().tolist() for v in values if v is not None
        )
        return {
            "dtype": "int",
            "bitwidth": self._bitwidth,
            "precision": self.precision,
            "is_symmetric": self.symmetric,
            "min": low,
            "max": high,
            "scale": scale,
            "offset": [int(o) for o in offset],
        }

    # -- module plumbing ----------------------------------------------------

    def _require_range(self) -> None:
        if not self._initialized:
            raise RuntimeError(
                f"{self._describe()} has no range yet: run sim.compute_encodings(...) "
                "with data that reaches it, or quantizer.set_range(min, max), first"
            )

    def _arguments(self) -> tuple[Any, ...]:
        return self.min, self.max, self.grid, self._signed, self.channel_axis

    def _apply(self, fn: Any, recurse: bool = True) -> AffineQuantizerBase:
        # Ranges stay float32 in a half-precision model: only the device follows.
        device = fn(torch.empty(0, device=self.min.device)).device
        if device.type == "meta":
            return super()._apply(fn, recurse)
        for parameter in (self.min, self.max):
            parameter.data = parameter.data.to(device)
            if parameter.grad is not None:
                parameter.grad.data = parameter.grad.data.to(device)
        self.grid = self.grid.to(device)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._initialized = not bool(torch.isnan(self.min).any())
        steps = int(self.grid[1] - self.grid[0])
        self._bitwidth = (steps + 1).bit_length() - (0 if self.strict_symmetric else 1)
        self._signed = int(self.grid[0]) < 0

    def extra_repr(self) -> str:
        kind = "symmetric" if self.symmetric else "asymmetric"
        axis = (
            ""
            if self.channel_axis is None
            else f", per-channel axis {self.channel_axis}"
        )
        state = "" if self._initialized else ", not calibrated"
        return f"{self.precision}, {kind}{axis}{state}"


class QuantizeDequantize(AffineQuantizerBase):
    """Fake quantization: onto the integer grid and back, with straight-through
    gradients to the tensor and learnable ends of the range.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x`, any shape, on the grid, in `x`'s dtype.

        Raises:
            RuntimeError: not calibrated yet.
        """
        if self._observing:
            self.observe(x)
            return x
        self._require_range()
        return torch.ops.aimetpp.fake_quantize(x, *self._arguments())


class Quantize(AffineQuantizerBase):
    """The first half: the integer grid values, in the input's floating dtype."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns integers in [qmin, qmax], of `x`'s shape and dtype."""
        if self._observing:
            self.observe(x)
            return x
        self._require_range()
        return torch.ops.aimetpp.quantize(x, *self._arguments())


class Dequantize(AffineQuantizerBase):
    """The second half: grid values back to real ones."""

    def forward(self, q: torch.Tensor) -> torch.Tensor:
        """Returns (q + offset) * scale, of `q`'s shape and dtype."""
        self._require_range()
        return torch.ops.aimetpp.dequantize(q, *self._arguments())
