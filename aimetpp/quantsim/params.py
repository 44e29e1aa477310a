# SPDX-License-Identifier: BSD-3-Clause
"""How techniques that make a simulation themselves quantize the model."""

from __future__ import annotations

import os
from dataclasses import dataclass

from aimetpp.common.defs import QuantScheme


@dataclass(frozen=True)
class QuantParams:
    """What `correct_bias` makes its simulation of.

    Args:
        weight_bw: bit-width of parameters, 2 to 32.
        act_bw: bit-width of activations, 2 to 32.
        round_mode: "nearest": there is no other.
        quant_scheme: as for QuantizationSimModel.
        config_file: as for QuantizationSimModel.

    Raises:
        ValueError: another round_mode.
    """

    weight_bw: int = 8
    act_bw: int = 8
    round_mode: str = "nearest"
    quant_scheme: QuantScheme | str | None = QuantScheme.post_training_tf_enhanced
    config_file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.round_mode != "nearest":
            raise ValueError(
                f"QuantParams: round_mode must be 'nearest', got {self.round_mode!r}"
            )
