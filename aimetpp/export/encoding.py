# SPDX-License-Identifier: BSD-3-Clause
"""What one quantizer does to a tensor, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from aimetpp.common.precision import Precision
from aimetpp.quantization import (
    FloatQuantizeDequantize,
    QuantizeDequantize,
    QuantizerBase,
)
from aimetpp.quantization.blocks import Blocks
from aimetpp.quantization.float import FLOAT_DTYPES


def require_ordered(quantizer: QuantizeDequantize, where: str) -> None:
    """Raises RuntimeError where a calibrated quantizer has a negative step."""
    if quantizer.is_crossed():
        raise RuntimeError(
            f"the quantizer of {where!r} has a negative step, because training has "
            "moved the ends of its range past each other: call sim.order_ranges(), "
            "and train ranges at a lower rate"
        )


@dataclass(frozen=True)
class Encoding:
    """What one quantizer does to a tensor: value = (q + offset) * scale.

    Attributes:
        precision: "int8", "fp16", "bf16", "fp8_e4m3", "fp8_e5m2".
        symmetric: the quantizer's grid is centred on zero.
        scale, offset: one number, or one for each index along `channel_axis`, or one
            for each of `blocks`. Empty for fp16 and bf16; the 8-bit floats have
            scales, value = number of the format * scale, and offsets 0.
        qmin, qmax: ends of the integer grid, both included; 0 for the float formats.
        channel_axis: the axis of a per-channel encoding; None for others.
        blocks: of a block-wise encoding; None for others.
        ends: min and max from which scale and offset follow, one each per scale; of an
            encoding that is no quantizer's the ends of its grid.
    """

    precision: str
    symmetric: bool = False
    scale: tuple[float, ...] = ()
    offset: tuple[int, ...] = ()
    qmin: int = 0
    qmax: int = 0
    channel_axis: int | None = None
    blocks: Blocks | None = None
    ends: tuple[tuple[float, ...], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.ends:
            pairs = list(zip(self.scale, self.offset, strict=True))
            ends = [[s * (o + q) for s, o in pairs] for q in (self.qmin, self.qmax)]
            object.__setattr__(self, "ends", tuple(map(tuple, ends)))

    @classmethod
    def of(cls, quantizer: torch.nn.Module, site: str) -> Encoding:
        """The encoding of `quantizer`, which stands at `site`.

        Raises:
            RuntimeError: it has not been calibrated, or its step is negative.
            ValueError: a quantizer that no file format here has.
        """
        assert isinstance(quantizer, QuantizerBase)
        precision = quantizer.precision
        if isinstance(quantizer, FloatQuantizeDequantize):
            return cls._of_float(quantizer, site)
        if not isinstance(quantizer, QuantizeDequantize):
            raise ValueError(
                f"export: {site!r} is {precision}, which encodings files and ONNX "
                "exports here do not have"
            )
        scale, offset = quantizer.get_scale(), quantizer.get_offset()
        if scale is None or offset is None:
            raise RuntimeError(
                f"the quantizer of {site!r} has no encoding: run "
                "sim.compute_encodings(...) with data that reaches it before exporting"
            )
        require_ordered(quantizer, site)
        qmin, qmax = quantizer.grid.tolist()
        return cls(
            precision=precision,
            symmetric=quantizer.symmetric,
            scale=tuple(scale.detach().flatten().tolist()),
            offset=tuple(int(o) for o in offset.detach().flatten().tolist()),
            qmin=qmin,
            qmax=qmax,
            channel_axis=(
                quantizer.channel_axis
                if scale.numel() > 1 and quantizer.blocks is None
                else None
            ),
            blocks=quantizer.blocks,
            ends=tuple(tuple(e.detach().flatten().tolist()) for e in quantizer.ends()),
        )

    @classmethod
    def _of_float(cls, quantizer: FloatQuantizeDequantize, site: str) -> Encoding:
        if not quantizer.is_initialized():
            raise RuntimeError(
                f"the quantizer of {site!r} has no scale: run "
                "sim.compute_encodings(...) with data that reaches it before exporting"
            )
        if quantizer.bitwidth > 8:
            if quantizer.scale is None:
                return cls(quantizer.precision)
            raise ValueError(
                f"export: {site!r} is {quantizer.precision} with a scale, which "
                "encodings files and ONNX exports here do not have"
            )
        scale = torch.ones(1) if quantizer.scale is None else quantizer.scale
        values = tuple(scale.detach().flatten().tolist())
        return cls(
            quantizer.precision,
            symmetric=True,
            scale=values,
            offset=(0,) * len(values),
            channel_axis=quantizer.channel_axis if len(values) > 1 else None,
        )

    @property
    def is_float(self) -> bool:
        """True for the float formats."""
        return self.precision in FLOAT_DTYPES

    @property
    def is_scaled_float(self) -> bool:
        """True for the 8-bit floats."""
        return self.is_float and bool(self.scale)

    @property
    def bitwidth(self) -> int:
        """Bits of the precision."""
        return Precision.parse(self.precision).bitwidth

    @property
    def file_offset(self) -> list[int]:
        """Offsets of a grid that starts at 0: min / scale."""
        return [offset + self.qmin for offset in self.offset]

    @property
    def zero_point(self) -> list[int]:
        """ONNX zero points: value = (q - zero_point) * scale."""
        return [-offset for offset in self.offset]
