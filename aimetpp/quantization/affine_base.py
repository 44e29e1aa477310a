# SPDX-License-Identifier: BSD-3-Clause
"""The state of a quantizer with a uniform integer grid: range and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from aimetpp import _C
from aimetpp.quantization.blocks import Blocks
from aimetpp.quantization.kept_statistics import KeptStatistics
from aimetpp.quantization.learning import DEFAULT_MOMENTUM
from aimetpp.quantization.parameter_reference import ParameterReference
from aimetpp.quantization.range_of_scale import range_of_scale


class AffineQuantizerBase(KeptStatistics):
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
        self.tensors_per_forward = 1
        # What the statistics are of, where that is a parameter, and what it held.
        self._parameter: ParameterReference | None = None
        self._content = 0
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
        its kept statistics yield at the new bit-width, a parameter's that changed
        since then the range of what it holds now. A range that did not come from
        calibration (set by hand, loaded, trained) keeps its ends.
        """
        return self._bitwidth

    @bitwidth.setter
    def bitwidth(self, bitwidth: int) -> None:
        # A symmetric grid without sign stays so: only calibration decides that.
        self._change_grid(bitwidth, self.symmetric and self._signed)

    @property
    def symmetric(self) -> bool:
        """Whether the grid is around zero. Setting it chooses the range as setting
        `bitwidth` does.
        """
        return self._symmetric

    @symmetric.setter
    def symmetric(self, symmetric: bool) -> None:
        self._change_grid(self._bitwidth, bool(symmetric), bool(symmetric))

    def _change_grid(
        self, bitwidth: int, signed: bool, symmetric: bool | None = None
    ) -> None:
        low, high = (end.detach() for end in self.ends())
        is_calibrated = self.follows_statistics()
        if is_calibrated:
            self._renew_statistics()
        self._set_grid(bitwidth, signed)
        if symmetric is not None:
            self._symmetric = symmetric
        if is_calibrated and self._overwrite:
            self._set_range_from_statistics()
        elif self._initialized:
            self._write_range(low, high)

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

    def set_encoding(
        self, scale: Sequence[float], offset: Sequence[int], symmetric: bool
    ) -> None:
        """Sets the grid by hand, at the bit-width that it has: scale and offset are
        afterwards exactly these, as float32 numbers. Kept statistics go, so that a
        later change of the bit-width starts from this range.

        Args:
            scale: one per range.
            offset: one per range, of a grid that starts at 0: min / scale.
            symmetric: of a symmetric grid; with all offsets 0 one without sign.

        Raises:
            ValueError: a wrong count, or a value that is not finite.
        """
        if len(scale) != self.min.numel() or len(offset) != self.min.numel():
            raise ValueError(
                f"{self._describe()}: {self.min.numel()} scales and offsets are "
                f"required, got {len(scale)} and {len(offset)}"
            )
        self.statistics = None
        self.symmetric = symmetric
        self._set_grid(self._bitwidth, symmetric and any(offset))
        wanted = torch.tensor(scale, dtype=torch.float32)
        start = torch.tensor(offset, dtype=torch.float64) * wanted.double()
        steps = int(self.grid[1] - self.grid[0])

        def scale_of(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
            self.set_range(low, high)
            got = self.get_scale()
            assert got is not None
            return got.detach().flatten().cpu()

        end = start + steps * wanted.double()
        self.set_range(*range_of_scale(start.float(), end.float(), wanted, scale_of))

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

    def may_be_calibrated(self) -> bool:
        """Whether calibration and bit-width changes may change the range."""
        return self._overwrite

    def restore_range(self) -> None:
        """Sets the range that the kept statistics yield, if there are any."""
        if self.has_statistics():
            self._renew_statistics()
            self._set_range_from_statistics()

    def renew_range(self) -> None:
        """Gives the quantizer of a parameter that changed since calibration the range
        of what it holds now, unless the range did not come from calibration.
        """
        if self.follows_statistics():
            self.restore_range()

    def _set_range_from_statistics(self) -> None:
        if not self._overwrite:
            return
        low, high, signed = self._range_of_statistics()
        self._set_grid(self._bitwidth, signed)
        self._write_range(low, high)

    def reset(self) -> None:
        """Forgets range and statistics."""
        self.statistics = None
        self._ranges = {}
        with torch.no_grad():
            self.min.fill_(float("nan"))
            self.max.fill_(float("nan"))
        self._initialized = False

    def state(self) -> tuple[Any, ...]:
        """Bit-width, symmetry, range and statistics, for `set_state`."""
        tensors: list[torch.Tensor] = [self.min, self.max]
        if self._learns == "scale":
            tensors.append(self.fixed_offset)
        grid = self._bitwidth, self._symmetric, self._signed
        known = self.statistics, self._ranges, self._content
        return grid, [t.detach().clone() for t in tensors], self._folded, known

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Puts back what `state` returned."""
        (bitwidth, self._symmetric, signed), tensors, folded, known = state
        self.statistics, self._ranges, self._content = known
        self._set_grid(bitwidth, signed)
        low, high, *offset = tensors
        self._write_range(low, high)
        if offset:
            with torch.no_grad():
                self.fixed_offset.copy_(offset[0])
        self._initialized = not bool(torch.isnan(low).any())
        self.set_folded(folded)

    # -- module plumbing ----------------------------------------------------

    def learn(
        self,
        what: str | None,
        samples_first: bool = False,
        momentum: float = DEFAULT_MOMENTUM,
    ) -> None:
        super().learn(what, samples_first, momentum)
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
        plain = self._learns not in ("scale", "moving_average")
        self._is_its_op = plain and self.blocks is None and not self._folded

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
