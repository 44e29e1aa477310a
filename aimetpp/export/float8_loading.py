# SPDX-License-Identifier: BSD-3-Clause
"""The scales of 8-bit floats, from encodings files to a simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from aimetpp.export.leaves import Leaf
from aimetpp.quantization import FloatQuantizeDequantize

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel


def check_float8(
    sim: QuantizationSimModel,
    leaves: Mapping[str, Leaf],
    quantizers: Mapping[str, set[int]],
) -> None:
    """Whether the 8-bit floats among the encodings can be given to quantizers.

    Args:
        sim: a simulation.
        leaves: encodings by name.
        quantizers: indices in the placement by name.

    Raises:
        RuntimeError: a wrong number of channels.
    """
    for key, leaf in leaves.items():
        if not leaf.float_scale:
            continue
        for index in quantizers[key]:
            channels = sim._bank.entries[index].integer.min.numel()
            if len(leaf.float_scale) != channels:
                raise RuntimeError(
                    f"load_encodings: {key} has {channels} channels, the file has "
                    f"{len(leaf.float_scale)}"
                )


def load_float8(
    sim: QuantizationSimModel,
    leaves: Mapping[str, Leaf],
    quantizers: Mapping[str, set[int]],
    allow_overwrite: bool,
) -> None:
    """Gives quantizers, which have their precisions, the scales of the encodings.

    Scales are afterwards exactly those of the file. The range that they stand for is
    kept too, so that another precision starts from it.

    Args:
        sim: a simulation.
        leaves: encodings by name.
        quantizers: indices in the placement by name.
        allow_overwrite: whether calibration may change what was loaded.
    """
    for key, leaf in leaves.items():
        if not leaf.float_scale:
            continue
        scale = torch.tensor(leaf.float_scale)
        for index in quantizers[key]:
            entry = sim._bank.entries[index]
            made, integer = entry.current(), entry.integer
            assert isinstance(made, FloatQuantizeDequantize)
            largest = (scale.double() * made.largest).float()
            integer.statistics = None
            integer.set_range(-largest, largest)
            integer.allow_overwrite(allow_overwrite)
            made.set_scale(scale)
