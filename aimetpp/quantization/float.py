# SPDX-License-Identifier: BSD-3-Clause
"""Quantization to a narrower floating-point format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from aimetpp.quantization.base import QuantizerBase, keep_masked

FLOAT_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class _Format:
    precision: str
    exponent_bits: int
    mantissa_bits: int
    # What is beyond the largest becomes the largest, not infinity.
    saturates: bool
    largest: float


_FORMATS = {
    torch.float16: _Format("fp16", 5, 10, False, 65504.0),
    torch.bfloat16: _Format("bf16", 8, 7, False, float.fromhex("0x1.fep127")),
    torch.float8_e4m3fn: _Format("fp8_e4m3", 4, 3, True, 448.0),
    torch.float8_e5m2: _Format("fp8_e5m2", 5, 2, True, 57344.0),
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
        return self._format.precision

    @property
    def bitwidth(self) -> int:
        """16 or 8: the width of the format."""
        return 1 + self._format.exponent_bits + self._format.mantissa_bits

    @property
    def saturates(self) -> bool:
        """Whether what is beyond the largest number becomes it, not infinite."""
        return self._format.saturates

    @property
    def largest(self) -> float:
        """The format's largest number: what the scale makes of a tensor's largest."""
        return self._format.largest

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
        return True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x`, any shape, rounded to the format, in `x`'s dtype."""
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

    def get_encodings(self) -> dict[str, Any] | None:
        found = {"dtype": "float", "bitwidth": self.bitwidth}
        if self.scale is not None:
            found["scale"] = self.scale.tolist()
        return {**found, "precision": self.precision}

    def extra_repr(self) -> str:
        scaled = "" if self.scale is None else f", {self.scale.numel()} scales"
        return f"{self.precision}{scaled}"
