# SPDX-License-Identifier: BSD-3-Clause
"""The state of a quantizer with a uniform integer grid: range and statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from aimetpp import _C
from aimetpp.quantization.affine_grid import AffineGrid
from aimetpp.quantization.blocks import Blocks


class AffineQuantizerBase(AffineGrid):
    """State of a quantizer with an integer grid.

    `min` and `max` are the learnable ends of the range; scale and offset follow
    from them. Bit-width and grid live in a tensor, so that changing them never
    recompiles a compiled model.

    Args:
        shape: shape of `min` and `max`: () for per-tensor, (C, 1, 1, 1)-like, with
            one dimension larger than 1, for per-channel, the number of blocks along
            each axis for block-wise.
        bitwidth: 2 to 32.
        symmetric: grid around zero instead of from zero up.
        strict_symmetric: as many steps below zero as above.
        unsigned_symmetric: where calibration sees no negative value, the symmetric
            grid becomes [0, 2^bitwidth - 1].
        scheme: "min_max", "tf_enhanced", "percentile" or "mse": how calibration
            chooses the range.
        channel_axis: the axis of per-channel ranges; by default the one dimension
            of `shape` that is larger than 1.
        block_size: block-wise ranges: elements of a block along each axis, -1 for
            "as `shape` makes it". A tensor's size is shape x block_size.

    Raises:
        ValueError: bit-width out of range; more than one dimension larger than 1
            without block_size; a block_size that does not go with `shape`.
    """

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
        block_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(shape, Sequence):
            raise TypeError(
                f"{type(self).__name__}: shape must be a tuple such as () or "
                f"(C, 1, 1, 1), got {shape!r}"
            )
        self.shape = tuple(shape)
        self.blocks = None if block_size is None else Blocks.of(self.shape, block_size)
        # The axis of per-channel ranges; None where there is one range only.
        self.channel_axis = self._channel_axis_of(channel_axis)
        _C.Statistics.for_scheme(1, scheme)  # an unknown scheme is an error now
        self._symmetric = bool(symmetric)
        self.strict_symmetric = strict_symmetric
        self.unsigned_symmetric = unsigned_symmetric
        self.scheme = scheme
        self.percentile = 100.0
        self.statistics: _C.Statistics | None = None
        # Ends of the range fixed by the config's encoding_constraints.
        self.fixed_min: float | None = None
        self.fixed_max: float | None = None
        self._overwrite = True
        self.set_folded(False)
        self._ranges: dict[tuple[Any, ...], tuple[torch.Tensor, torch.Tensor]] = {}
        # NaN marks a range that calibration has not set yet; it survives
        # state_dict, unlike a Python flag.
        nan = torch.full(self.shape, float("nan"))
        self.min = torch.nn.Parameter(nan)
        self.max = torch.nn.Parameter(nan.clone())
        self.register_buffer("grid", torch.zeros(2, dtype=torch.int64))
        self._initialized = False
        self._bitwidth = 0
        self._set_grid(bitwidth, self._symmetric)

    def _channel_axis_of(self, given: int | None) -> int | None:
        wide = [axis for axis, size in enumerate(self.shape) if size > 1]
        if self.blocks is not None:
            if given is not None:
                raise ValueError(
                    f"{type(self).__name__}: channel_axis and block_size exclude each "
                    f"other, got {given} and {self.block_size}"
                )
            return 0  # of the blocks in a row, see Blocks.split
        if len(wide) > 1:
            raise ValueError(
                f"{type(self).__name__}: shape must have at most one dimension larger "
                f"than 1 (the channels), or block_size be given, got {self.shape}"
            )
        return (wide[0] if given is None else given) if wide else None

    @property
    def block_size(self) -> tuple[int, ...] | None:
        """Elements of a block along each axis, -1 for what remains; None where the
        ranges are not block-wise.
        """
        return None if self.blocks is None else self.blocks.size

    # -- grid ---------------------------------------------------------------

    @property
    def bitwidth(self) -> int:
        """Bits of the grid. Setting it gives a calibrated quantizer the range that
        its kept statistics yield at the new bit-width.
        """
        return self._bitwidth

    @bitwidth.setter
    def bitwidth(self, bitwidth: int) -> None:
        # A symmetric grid without sign stays so: only calibration decides that.
        low, high = (end.detach() for end in self.ends())
        self._set_grid(bitwidth, self.symmetric and self._signed)
        if self.has_statistics() or not self._initialized:
            self.restore_range()
        else:
            self._write_range(low, high)

    @property
    def symmetric(self) -> bool:
        """Whether the grid is around zero. Setting it gives a calibrated quantizer the
        range that its kept statistics yield with the new symmetry.
        """
        return self._symmetric

    @symmetric.setter
    def symmetric(self, symmetric: bool) -> None:
        self._symmetric = bool(symmetric)
        self._set_grid(self._bitwidth, self._symmetric)
        self.restore_range()

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
        self.set_folded(False)
        self._fix_offset()

    def allow_overwrite(self, allow: bool) -> None:
        """False keeps calibration and bit-width changes from changing the range."""
        self._overwrite = allow

    def has_statistics(self) -> bool:
        """True where calibration left statistics, from which ranges of other
        bit-widths follow.
        """
        return self.statistics is not None and not self.statistics.empty

    def restore_range(self) -> None:
        """Sets the range that the kept statistics yield, if there are any."""
        if self.has_statistics():
            self._set_range_from_statistics()

    def reset(self) -> None:
        """Forgets range and statistics."""
        self.statistics = None
        self._ranges.clear()
        with torch.no_grad():
            self.min.fill_(float("nan"))
            self.max.fill_(float("nan"))
        self._initialized = False

    def state(self) -> tuple[Any, ...]:
        """Bit-width, symmetry and range, for `set_state`; statistics are not in it."""
        low, high = (end.detach().clone() for end in self.ends())
        return self._bitwidth, self._symmetric, self._signed, low, high, self._folded

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Puts back what `state` returned."""
        bitwidth, self._symmetric, signed, low, high, folded = state
        self._set_grid(bitwidth, signed)
        self._write_range(low, high)
        self._initialized = not bool(torch.isnan(low).any())
        self.set_folded(folded)

    # -- calibration --------------------------------------------------------

    def observe(self, x: torch.Tensor) -> None:
        """Adds `x` to the kept statistics.

        Raises:
            ValueError: `x` holds a NaN; the message names the quantizer.
        """
        if self.masked_below is not None:
            x = x[x > self.masked_below]
        if self.statistics is None:
            self.statistics = _C.Statistics.for_scheme(self.min.numel(), self.scheme)
        try:
            if self.blocks is not None:
                x = self.blocks.split(x.detach())
            self.statistics.update(x, self.channel_axis)
        except ValueError as error:
            raise ValueError(f"{self._describe()}: {error}") from error
        self._ranges.clear()

    @contextlib.contextmanager
    def compute_encodings(self) -> Iterator[None]:
        previous, self.statistics = self.statistics, None
        ranges = dict(self._ranges)
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
            # The same data again, as weights mostly are: nothing to search for.
            if self.statistics == previous:
                self._ranges = ranges
            self._set_range_from_statistics()

    def _symmetry(self) -> str:
        if self.symmetric and self.unsigned_symmetric:
            return "unsigned_symmetric"
        return self._grid_symmetry(self.symmetric)

    def _set_range_from_statistics(self) -> None:
        if not self._overwrite:
            return
        assert self.statistics is not None
        key = (self._bitwidth, self._symmetry(), self.scheme, self.percentile)
        if key not in self._ranges:
            self._ranges[key] = _C.ranges_from_statistics(
                self.statistics, self.scheme, self._bitwidth, key[1], self.percentile
            )
        low, high = self._ranges[key]
        # One grid for all channels; without sign where no channel needs one.
        signed = self.symmetric and bool((low < 0).any())
        self._set_grid(self._bitwidth, signed)
        if self.fixed_min is not None:
            low = torch.full_like(low, self.fixed_min)
        if self.fixed_max is not None:
            high = torch.full_like(high, self.fixed_max)
        self._write_range(low, high)

    # -- module plumbing ----------------------------------------------------

    def learn(self, what: str | None, samples_first: bool = False) -> None:
        super().learn(what, samples_first)
        self._note_its_op()

    def set_folded(self, folded: bool = True) -> None:
        """From now on what comes in is on the grid already and passes through, until
        grid or range change.
        """
        self._folded = folded
        self._note_its_op()

    def _note_its_op(self) -> None:
        # Whether forward is the op on min, max and grid and nothing else, so that
        # C++ may run it without Python.
        plain = self.blocks is None and self._learns != "scale" and not self._folded
        self._is_its_op = plain

    def _apply(self, fn: Any, recurse: bool = True) -> AffineQuantizerBase:
        # Ranges stay float32 in a half-precision model: only the device follows.
        device = fn(torch.empty(0, device=self.min.device)).device
        if device.type == "meta":
            return super()._apply(fn, recurse)
        for parameter in (self.min, self.max):
            parameter.data = parameter.data.to(device)
            if parameter.grad is not None:
                parameter.grad.data = parameter.grad.data.to(device)
        for name, buffer in self._buffers.items():  # grid, fixed_offset
            if buffer is not None:
                self._buffers[name] = buffer.to(device)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._initialized = not bool(torch.isnan(self.min).any())
        self.set_folded(False)
        # 2^b - 1 steps, or one less where the grid is strict: b bits either way.
        self._bitwidth = int(self.grid[1] - self.grid[0]).bit_length()
        self._signed = int(self.grid[0]) < 0
        # A grid from zero up is symmetric only where that was asked for.
        self._symmetric = self._signed or (self._symmetric and self.unsigned_symmetric)

    def extra_repr(self) -> str:
        kind = "symmetric" if self.symmetric else "asymmetric"
        if self.blocks is not None:
            axis = f", {self.min.numel()} blocks of size {self.block_size}"
        elif self.channel_axis is not None:
            axis = f", per-channel axis {self.channel_axis}"
        else:
            axis = ""
        state = "" if self._initialized else ", not calibrated"
        learns = "" if self._learns == "min_max" else f", learns {self._learns}"
        return f"{self.precision}, {kind}{axis}{learns}{state}"
