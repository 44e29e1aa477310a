# SPDX-License-Identifier: BSD-3-Clause
"""Quantization to a uniform integer grid."""

from __future__ import annotations

import torch
from torch.nn.modules import module as torch_module

from aimetpp import _C
from aimetpp.quantization.affine_base import AffineQuantizerBase
from aimetpp.quantization.base import keep_masked

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
        if self._folded:
            return x
        if self._learns == "moving_average" and self.training:
            return self._run_observed(x)
        quantized = self._run(torch.ops.aimetpp.fake_quantize, x)
        return keep_masked(x, quantized, self.masked_below)

    def _run_observed(self, x: torch.Tensor) -> torch.Tensor:
        """Quantizes `x` and moves the range towards that of `x`."""
        masked = self.masked_below
        # Infinite values do not count.
        seen = x if masked is None else x.masked_fill(x <= masked, torch.inf)
        # The gradient needs the range from before.
        low, high = self.min.detach().clone(), self.max.detach().clone()
        quantized, least, largest = torch.ops.aimetpp.fake_quantize_observed(
            seen, low, high, self.grid, self._signed
        )
        self.follow(least, largest)
        return keep_masked(x, quantized, masked)


# C++ runs this class itself where nothing hooks into the call.
_C.register_quantizer(
    QuantizeDequantize,
    (
        torch_module._global_forward_hooks,
        torch_module._global_forward_pre_hooks,
        torch_module._global_backward_hooks,
        torch_module._global_backward_pre_hooks,
    ),
)


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
        return self.grid_values(q)
