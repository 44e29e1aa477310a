# SPDX-License-Identifier: BSD-3-Clause
"""Calibration of the quantizers in a model: parameters first, then what runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import torch

from aimetpp.nn.computed import weight_of
from aimetpp.nn.wrap import QuantizationMixin
from aimetpp.quantization.base import QuantizerBase
from aimetpp.quantization.parameter_reference import ParameterReference


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
    params = calibrate_params(model)
    with contextlib.ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, QuantizerBase) and id(module) not in params:
                stack.enter_context(module.compute_encodings())
        yield


def calibrate_params(model: torch.nn.Module) -> set[int]:
    """Gives every quantizer of a parameter the range that the parameter has now.

    Args:
        model: `sim.model`, or a part of it; of a part, only the quantizers in its
            `param_quantizers`.

    Returns:
        The ids of the quantizers of parameters, calibrated or not.
    """
    pairs = [
        (quantizer, ParameterReference(module, partial(weight_of, name=name)))
        for module in model.modules()
        if isinstance(module, QuantizationMixin)
        for name, quantizer in module.param_quantizers.items()
        if quantizer is not None
    ]
    sim = model.__dict__.get("_aimetpp_sim", lambda: None)()
    slots = [] if sim is None else sim._bank.borrowing_slots()
    borrowed = [(slot.get(), slot.reference()) for slot in slots]
    done: set[int] = set()
    for quantizer, parameter in (*pairs, *borrowed):
        if id(quantizer) in done or not isinstance(quantizer, QuantizerBase):
            continue
        done.add(id(quantizer))
        quantizer.calibrate_on(parameter)
    return done
