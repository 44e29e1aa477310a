# SPDX-License-Identifier: BSD-3-Clause
"""Quantization to a narrower floating-point format."""

from __future__ import annotations

from typing import Any

import torch

from aimetpp.quantization.base import QuantizerBase, keep_masked

FLOAT_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_PRECISIONS = {dtype: name for name, dtype in FLOAT_DTYPES.items()}
# By exponent and mantissa bits.
_DTYPES: dict[tuple[int | None, int | None], torch.dtype] = {
    (5, 10): torch.float16,
    (8, 7): torch.bfloat16,
}


class FloatQuantizeDequantize(QuantizerBase):
    """Rounds a tensor to float16 or bfloat16 and back to its own dtype.

    Values beyond the format's largest become infinite, as a cast does. The
    gradient passes through the rounding unchanged.

    Args:
        dtype: torch.float16 or torch.bfloat16; or else
        exponent_bits, mantissa_bits: (5, 10) or (8, 7), the same two formats.

    Raises:
        ValueError: for any other format.
    """

    def __init__(
        self,
        dtype: torch.dtype | None = None,
        *,
        exponent_bits: int | None = None,
        mantissa_bits: int | None = None,
    ) -> None:
        super().__init__()
        bits = (exponent_bits, mantissa_bits)
        chosen = dtype if bits == (None, None) else _DTYPES.get(bits)
        if chosen not in _PRECISIONS or dtype not in (None, chosen):
            raise ValueError(
                "FloatQuantizeDequantize: dtype must be torch.float16 (5 exponent and "
                "10 mantissa bits) or torch.bfloat16 (8 and 7), got "
                f"dtype={dtype}, exponent_bits={exponent_bits}, "
                f"mantissa_bits={mantissa_bits}"
            )
        self.dtype = chosen

    @property
    def precision(self) -> str:
        return _PRECISIONS[self.dtype]

    @property
    def bitwidth(self) -> int:
        """16: the width of either format."""
        return 16

    def is_initialized(self) -> bool:
        return True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x`, any shape, rounded to the format, in `x`'s dtype."""
        return keep_masked(x, x.to(self.dtype).to(x.dtype), self.masked_below)

    def get_encodings(self) -> dict[str, Any] | None:
        return {"dtype": "float", "bitwidth": 16, "precision": self.precision}

    def extra_repr(self) -> str:
        return self.precision
