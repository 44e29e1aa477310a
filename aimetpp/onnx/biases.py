# SPDX-License-Identifier: BSD-3-Clause
"""Biases of an ONNX simulation, rounded as integer hardware rounds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch

from aimetpp import _C
from aimetpp.nn.integer_bias import BiasSource, IntegerBias
from aimetpp.onnx.quantized_graph import feed_name

if TYPE_CHECKING:
    from aimetpp.onnx.bank import OnnxBank
    from aimetpp.onnx.reading import Reading
    from aimetpp.onnx.session import SimSession


@dataclass(frozen=True)
class BiasSpot:
    """Where a layer reads its bias.

    Attributes:
        site: of the bias.
        tensor: its name in the model.
        reader: (node, input).
        values: float32, [channels].
        rounding: puts them on the grid of the layer's sums.
    """

    site: int
    tensor: str
    reader: tuple[int, int]
    values: torch.Tensor
    rounding: IntegerBias

    @property
    def feed(self) -> str:
        """The name of the graph input in its place."""
        return feed_name("bias", self.site, self.tensor)

    def rounded(self) -> np.ndarray:
        """The values as they are added now."""
        values: torch.Tensor = self.rounding(self.values)
        return values.numpy()


def find_biases(
    model: onnx.ModelProto, reading: Reading, placement: _C.Placement, bank: OnnxBank
) -> Iterator[BiasSpot]:
    """The biases that an exported file holds as 32-bit integers."""
    for bias in _C.integer_biases(reading.graph, placement):
        place = node, slot = reading.places[bias.site]
        name = model.graph.node[node].input[slot]
        values = reading.constants[name]
        factors = [a.f for a in model.graph.node[node].attribute if a.name in _FACTORS]
        if values.dtype != np.float32 or values.ndim != 1 or set(factors) - {1.0}:
            continue
        source, weight = (bank.entries[i].current for i in (bias.input, bias.weight))
        rounding = IntegerBias("", [BiasSource(source, weight, bias.factor)])
        tensor = torch.from_numpy(np.array(values))
        yield BiasSpot(bias.site, name, place, tensor, rounding)


# Of a Gemm: the sum is then not that of input, weight and bias.
_FACTORS = ("alpha", "beta")


class IntegerBiasMethods:
    """The part of QuantizationSimModel that rounds biases."""

    model: onnx.ModelProto
    reading: Reading
    placement: _C.Placement
    session: SimSession
    _bank: OnnxBank

    @property
    def int32_bias(self) -> bool:
        """Whether biases of convolutions and linear layers are rounded to 32-bit
        integers in steps of input scale x weight scale, as exported files have them
        by default.

        A bias stays float where its layer's input or weight is on no integer grid,
        where 32 bits do not hold it, and while calibration runs.
        """
        return bool(self.session.biases)

    @int32_bias.setter
    def int32_bias(self, rounded: bool) -> None:
        if not isinstance(rounded, bool):
            raise TypeError(
                f"int32_bias must be True or False, got {type(rounded).__name__}"
            )
        found: Iterator[BiasSpot] = iter(())
        if rounded:
            found = find_biases(self.model, self.reading, self.placement, self._bank)
        self.session.biases = tuple(found)

    def _bias_rounding(self, site: int) -> torch.nn.Module | None:
        roundings = (b.rounding for b in self.session.biases if b.site == site)
        return next(roundings, None)
