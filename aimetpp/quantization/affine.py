# SPDX-License-Identifier: BSD-3-Clause
"""Quantization to a uniform integer grid."""

from __future__ import annotations

import torch

from aimetpp.quantization.affine_base import AffineQuantizerBase

__all__ = ["AffineQuantizerBase", "Dequantize", "Quantize", "QuantizeDequantize"]


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
        return self._run(torch.ops.aimetpp.fake_quantize, x)


class Quantize(AffineQuantizerBase):
    """The first half: the integer grid values, in the input's floating dtype."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns integers in [qmin, qmax], of `x`'s shape and dtype."""
        if self._observing:
            self.observe(x)
            return x
        self._require_range()
        return self._run(torch.ops.aimetpp.quantize, x)


class Dequantize(AffineQuantizerBase):
    """The second half: grid values back to real ones."""

    def forward(self, q: torch.Tensor) -> torch.Tensor:
        """Returns (q + offset) * scale, of `q`'s shape and dtype."""
        self._require_range()
        return self._run(torch.ops.aimetpp.dequantize, q)
