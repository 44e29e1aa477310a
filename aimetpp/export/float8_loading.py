# SPDX-License-Identifier: BSD-3-Clause
"""The scales of 8-bit floats, from encodings files to a simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from aimetpp.export.leaves import Leaf
from aimetpp.quantization import FloatQuantizeDequantize, QuantizeDequantize

if TYPE_CHECKING:
    from aimetpp.export.loading import Targets


def check_float8(
    targets: Targets,
    leaves: Mapping[str, Leaf],
    quantizers: Mapping[str, set[int]],
) -> None:
    """Whether the 8-bit floats among the encodings can be given to quantizers.

    Args:
        targets: the quantizers that can be given encodings.
        leaves: encodings by name.
        quantizers: numbers of quantizers by name.

    Raises:
        RuntimeError: a wrong number of channels.
    """
    for key, leaf in leaves.items():
        if not leaf.float_scale:
            continue
        for number in quantizers[key]:
            quantizer = targets.quantizer(number)
            if isinstance(quantizer, QuantizeDequantize):
                channels = quantizer.min.numel()
            else:  # a user's, whose precision apply_leaves checks
                scale = getattr(quantizer, "scale", None)
                channels = 1 if scale is None else scale.numel()
            if len(leaf.float_scale) != channels:
                raise RuntimeError(
                    f"load_encodings: {key} has {channels} channels, the file has "
                    f"{len(leaf.float_scale)}"
                )


def load_float8(
    targets: Targets,
    leaves: Mapping[str, Leaf],
    quantizers: Mapping[str, set[int]],
    allow_overwrite: bool,
) -> None:
    """Gives quantizers, which have their precisions, the scales of the encodings.

    Scales are afterwards exactly those of the file. The range that they stand for is
    kept too, so that another precision starts from it.

    Args:
        targets: the quantizers that can be given encodings.
        leaves: encodings by name.
        quantizers: numbers of quantizers by name.
        allow_overwrite: whether calibration may change what was loaded.
    """
    for key, leaf in leaves.items():
        if not leaf.float_scale:
            continue
        scale = torch.tensor(leaf.float_scale)
        for number in quantizers[key]:
            own = targets.own_at(number)
            if own is not None:
                assert isinstance(own, FloatQuantizeDequantize)
                own.set_scale(scale)
                continue
            entry = targets.entry(number)
            made, integer = entry.current(), entry.integer
            assert isinstance(made, FloatQuantizeDequantize)
            largest = (scale.double() * made.largest).float()
            integer.statistics = None
            integer.set_range(-largest, largest)
            integer.allow_overwrite(allow_overwrite)
            made.set_scale(scale)
