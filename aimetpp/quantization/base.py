# SPDX-License-Identifier: BSD-3-Clause
"""What every quantizer has, whatever grid it maps to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from aimetpp.quantization.parameter_reference import ParameterReference


# What the events of torch.profiler begin with in which a quantizer runs, here and in
# csrc/python/quantizer_view.h.
SITE_EVENT = "aimetpp site "


def keep_masked(
    x: torch.Tensor, quantized: torch.Tensor, masked_below: float | None
) -> torch.Tensor:
    """What a quantizer makes of `x`, but `x` where it is masked.

    Args:
        x: any shape.
        quantized: of `x`'s shape and dtype.
        masked_below: see `QuantizerBase`.
    """
    if masked_below is None:
        return quantized
    return torch.where(x > masked_below, quantized, x)


class QuantizerBase(torch.nn.Module):
    """A module from a tensor to its quantized-dequantized self.

    Attributes:
        label: the name of the place where it stands, for error messages.
        masked_below: values not above it are masked attention scores, which count in
            no range and pass unchanged; None: there are none here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.label = ""
        self.masked_below: float | None = None
        self._observing = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Quantizers that C++ runs by itself do not come here.
        if torch.compiler.is_compiling() or not torch.autograd._profiler_enabled():
            return super().__call__(*args, **kwargs)
        with torch.profiler.record_function(SITE_EVENT + self.label):
            return super().__call__(*args, **kwargs)

    @property
    def precision(self) -> str:
        """What the quantizer maps to: "int8", "fp16", "fp8_e4m3"."""
        raise NotImplementedError

    def is_initialized(self) -> bool:
        """True where the quantizer can run: it has a range or needs none."""
        raise NotImplementedError

    @contextlib.contextmanager
    def compute_encodings(self) -> Iterator[None]:
        """A context in which tensors pass through unquantized and are observed.

        On leaving, the range is computed from what was seen; a quantizer that saw
        nothing keeps its state.
        """
        yield

    def calibrate_on(self, parameter: ParameterReference) -> None:  # noqa: B027
        """Takes the range that a parameter has now; nothing for what needs none.

        Raises:
            ValueError: it holds a NaN.
        """

    def get_encodings(self) -> dict[str, Any] | None:
        """The encoding as plain numbers, or None where it has none yet."""
        raise NotImplementedError

    def _describe(self) -> str:
        return f"quantizer {self.label!r}" if self.label else type(self).__name__
