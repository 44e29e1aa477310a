# SPDX-License-Identifier: BSD-3-Clause
"""Quantized modules."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from aimetpp.nn.wrap import BaseQuantizationMixin, QuantizationMixin
from aimetpp.quantization.base import QuantizerBase

__all__ = ["BaseQuantizationMixin", "QuantizationMixin", "compute_encodings"]


@contextlib.contextmanager
def compute_encodings(model: torch.nn.Module) -> Iterator[None]:
    """Calibrates the quantizers of a quantized model on what runs in the context.

    Parameters are calibrated on entry and quantized meanwhile; activations pass
    through unquantized and are observed; their ranges are set on leaving.

    Args:
        model: `sim.model`, or a part of it.

    Raises:
        ValueError: a NaN reached a quantizer; the message names it.
    """
    params: set[int] = set()
    for module in model.modules():
        if not isinstance(module, QuantizationMixin):
            continue
        for name, quantizer in module.param_quantizers.items():
            if quantizer is None or id(quantizer) in params:
                continue
            params.add(id(quantizer))
            with quantizer.compute_encodings(), torch.no_grad():  # type: ignore[operator]
                quantizer(module._parameters[name])
    with contextlib.ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, QuantizerBase) and id(module) not in params:
                stack.enter_context(module.compute_encodings())
        yield
