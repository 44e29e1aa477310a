# SPDX-License-Identifier: BSD-3-Clause
"""Quantization to a narrower floating-point format."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from aimetpp import _C
from aimetpp.quantization.base import QuantizerBase, keep_masked
from aimetpp.quantization.parameter_reference import ParameterReference

if TYPE_CHECKING:
    from aimetpp.quantization.affine import QuantizeDequantize

# PyTorch's names of the narrow float precisions. Those of 8 bits have too small a
# range for most tensors without a scale.
FLOAT8_DTYPES = {"fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
FLOAT_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, **FLOAT8_DTYPES}


@dataclass(frozen=True)
class _Format:
    """A row of the table of them, which tracers and deepcopy can look into."""

    name: str
    bitwidth: int
    exponent_bits: int
    mantissa_bits: int
    # What is beyond the largest becomes the largest, not infinity.
    saturates: bool
    largest: float


_FORMATS = {
    FLOAT_DTYPES[row.name]: _Format(
        row.name,
        row.bitwidth,
        row.exponent_bits,
        row.mantissa_bits,
        row.saturates,
        row.largest,
    )
    for row in _C.narrow_floats()
}
# By exponent and mantissa bits.
_DTYPES: dict[tuple[int | None, int | None], torch.dtype] = {
    (f.exponent_bits, f.mantissa_bits): dtype for dtype, f in _FORMATS.items()
}


class FloatQuantizeDequantize(QuantizerBase):
    """Rounds a tensor to a narrow floating-point format and back to its own dtype.

    float16 and bfloat16 are what a cast gives: values beyond the format's largest
    become infinite, and the gradient passes through the rounding unchanged. The two
    8-bit formats (Open Compute Project; Micikevicius et al., FP8 Formats for Deep
    Learning, arXiv:2209.05433) saturate, and what saturates passes no gradient.
    Subnormal numbers are kept, rounding is half to even.

    With a scale s the result is round(x / s) * s: an 8-bit format has too small a
    range for most tensors without one.

    Args:
        dtype: torch.float16, torch.bfloat16, torch.float8_e4m3fn or
            torch.float8_e5m2; or else
        exponent_bits, mantissa_bits: (5, 10), (8, 7), (4, 3) or (5, 2), the same.
        scale: a positive number, or one for each channel; not trained.
        channel_axis: the axis of `x` that several scales are for.

    Raises:
        ValueError: any other format; a scale that is not positive and finite;
            several scales without channel_axis or one with it.
    """

    scale: torch.Tensor | None

    def __init__(
        self,
        dtype: torch.dtype | None = None,
        *,
        exponent_bits: int | None = None,
        mantissa_bits: int | None = None,
        scale: float | torch.Tensor | None = None,
        channel_axis: int | None = None,
    ) -> None:
        super().__init__()
        bits = (exponent_bits, mantissa_bits)
        chosen = dtype if bits == (None, None) else _DTYPES.get(bits)
        if chosen not in _FORMATS or dtype not in (None, chosen):
            raise ValueError(
                "FloatQuantizeDequantize: dtype must be torch.float16 (5 exponent and "
                "10 mantissa bits), torch.bfloat16 (8 and 7), torch.float8_e4m3fn "
                "(4 and 3) or torch.float8_e5m2 (5 and 2), got "
                f"dtype={dtype}, exponent_bits={exponent_bits}, "
                f"mantissa_bits={mantissa_bits}"
            )
        self.dtype = chosen
        self._format = _FORMATS[chosen]
        # In a tuple it is no submodule, so that it is not in the model's state.
        self._calibrated: tuple[QuantizeDequantize, ...] = ()
        self.channel_axis = channel_axis
        self.register_buffer("scale", None)
        if scale is not None:
            self.set_scale(scale)
        elif channel_axis is not None:
            raise ValueError(
                "FloatQuantizeDequantize: channel_axis needs a scale for each channel"
            )

    @property
    def precision(self) -> str:
        return self._format.name

    @property
    def bitwidth(self) -> int:
        """16 or 8: the width of the format."""
        return self._format.bitwidth

    @property
    def saturates(self) -> bool:
        """Whether what is beyond the largest number becomes it, not infinite."""
        return self._format.saturates

    @property
    def largest(self) -> float:
        """The format's largest number: what the scale makes of a tensor's largest."""
        return self._format.largest

    @property
    def calibrated(self) -> QuantizeDequantize | None:
        """What observes for this quantizer, see `scaled_by`; None for one whose scale
        is given by hand, or that has none.
        """
        return self._calibrated[0] if self._calibrated else None

    def set_scale(self, scale: float | torch.Tensor) -> None:
        """Sets the scale, one number or one for each channel.

        Raises:
            ValueError: see the class.
        """
        value = torch.as_tensor(scale, dtype=torch.float32).detach().clone()
        if not (value.isfinite() & (value > 0)).all():
            raise ValueError(
                f"{self._describe()}: scale must be positive and finite, got {scale}"
            )
        if (value.numel() != 1) and self.channel_axis is None:
            raise ValueError(
                f"{self._describe()}: scale must have 1 value where channel_axis is "
                f"not given, got {value.numel()}"
            )
        self.scale = value

    def is_initialized(self) -> bool:
        return self.calibrated is None or self.scale is not None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x`, any shape, rounded to the format, in `x`'s dtype.

        Raises:
            RuntimeError: a quantizer that calibration is to give a scale has none yet.
        """
        if self._observing and self.calibrated is not None:
            self.calibrated.observe(x)
            return x
        if not self.is_initialized():
            raise RuntimeError(
                f"{self._describe()} has no scale yet: run compute_encodings first"
            )
        form = self._format
        quantized = torch.ops.aimetpp.float_quantize(
            x,
            form.exponent_bits,
            form.mantissa_bits,
            form.saturates,
            self.scale,
            self.channel_axis,
        )
        return keep_masked(x, quantized, self.masked_below)

    # -- scales from calibration --------------------------------------------

    @classmethod
    def scaled_by(
        cls, calibrated: QuantizeDequantize, dtype: torch.dtype
    ) -> FloatQuantizeDequantize:
        """A quantizer whose scale makes the largest magnitude that calibration finds
        the format's largest number: one scale per range of `calibrated`, which observes
        for it and keeps the statistics. Without any yet it has no scale either.

        Raises:
            ValueError: block-wise ranges.
        """
        made = cls(dtype)
        if calibrated.blocks is not None:
            raise ValueError(
                f"{calibrated._describe()}: {made.precision} has a scale per tensor or "
                "per channel, not per block"
            )
        made.channel_axis = calibrated.channel_axis
        made._calibrated = (calibrated,)
        made.label, made.masked_below = calibrated.label, calibrated.masked_below
        made.renew_scale()
        return made

    def renew_scale(self) -> None:
        """Takes the scale that the calibrated range yields, if there is one; of a
        parameter that has changed since it was calibrated, of what it holds now.
        Where calibration may not change the range (`allow_overwrite`), the scale stays.
        """
        assert self.calibrated is not None
        if self.scale is not None and not self.calibrated.may_be_calibrated():
            return
        largest = self.calibrated.largest_magnitude()
        if largest is None:
            self.scale = None
            return
        # A range of nothing but zeros needs no scale.
        self.set_scale(torch.where(largest > 0, largest / self.largest, 1.0))

    @contextlib.contextmanager
    def compute_encodings(self) -> Iterator[None]:
        if self.calibrated is None:
            yield
            return
        self._observing = True
        try:
            with self.calibrated.compute_encodings():
                yield
        finally:
            self._observing = False
        self.renew_scale()

    def calibrate_on(self, parameter: ParameterReference) -> None:
        if self.calibrated is not None:
            self.calibrated.calibrate_on(parameter)
            self.renew_scale()

    def _apply(self, fn: Any, recurse: bool = True) -> FloatQuantizeDequantize:
        # Scales stay float32 in a half-precision model: only the device follows.
        if self.scale is None or self.scale.is_meta:
            return super()._apply(fn, recurse)
        scale = self.scale
        super()._apply(fn, recurse)
        assert self.scale is not None
        self.scale = self.scale if self.scale.is_meta else scale.to(self.scale.device)
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        saved = state_dict.get(f"{prefix}scale")
        if saved is not None and self.scale is None and self.calibrated is not None:
            self.scale = torch.empty_like(saved)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def get_encodings(self) -> dict[str, Any] | None:
        if not self.is_initialized():
            return None
        found = {"dtype": "float", "bitwidth": self.bitwidth}
        if self.scale is not None:
            found["scale"] = self.scale.tolist()
        return {**found, "precision": self.precision}

    def extra_repr(self) -> str:
        scaled = "" if self.scale is None else f", {self.scale.numel()} scales"
        return f"{self.precision}{scaled}"
