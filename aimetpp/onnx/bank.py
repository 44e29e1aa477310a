# SPDX-License-Identifier: BSD-3-Clause
"""The quantizers of an ONNX model, and what they feed its session with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aimetpp import _C
from aimetpp.onnx.quantized_graph import (
    INTEGER,
    MODES,
    WIDE,
    Spots,
    feed_name,
    grid_names,
)
from aimetpp.quantization import QuantizeDequantize, QuantizerBase
from aimetpp.quantsim.bank import QuantizerBank
from aimetpp.quantsim.entries import Slot

_FIRST_WIDE_BITWIDTH = 22  # csrc/core/quant_math.h, needs_double
_GRID_TYPES: dict[str, type[np.floating[Any]]] = {INTEGER: np.float32, WIDE: np.float64}


@dataclass
class _TensorSlot(Slot):
    """A site's entry in the bank's own container."""

    tensor: torch.Tensor | None = None

    def parameter(self) -> torch.Tensor | None:
        return self.tensor


class OnnxBank(QuantizerBank):
    """The quantizers of a placement on an ONNX graph.

    Args:
        graph: as read.
        placement: of it.
        scheme: how calibration chooses ranges.
        spots: where the quantizers stand.
        constants: the model's weights by name; not copied.
    """

    def __init__(
        self,
        graph: _C.OpGraph,
        placement: _C.Placement,
        scheme: str,
        spots: Spots,
        constants: Mapping[str, np.ndarray],
    ) -> None:
        self.container = torch.nn.Module()
        self._spots = spots
        self._params = {
            spot.quantizer: _as_tensor(constants[spot.tensor]) for spot in spots.params
        }
        self._param_of_site = {
            site: self._params[index]
            for index, spec in enumerate(placement.quantizers)
            for site in spec.sites
            if index in self._params
        }
        # By quantizer and what is fed: what it was made from, and the arrays.
        self._fed: dict[Any, tuple[Any, dict[str, np.ndarray]]] = {}
        super().__init__(graph, placement, scheme)

    def _device_of(self, site: int) -> torch.device:
        return torch.device("cpu")

    def slots_of(self, site: int) -> list[Slot]:
        tensor = self._param_of_site.get(site)
        return [_TensorSlot(site, self.container, str(site), tensor=tensor)]

    def _check_float(self, index: int, precision: str) -> None:
        if precision not in MODES:
            raise ValueError(
                f"the precision of {self.entries[index].label!r} cannot be "
                f"{precision}: simulations of ONNX models have integers, fp16, bf16 "
                "and fp32"
            )

    def is_off(self) -> bool:
        """True where no quantizer is on."""
        return all(entry.current() is None for entry in self.entries)

    def calibrate_params(self) -> None:
        """Gives the quantizers of parameters that are on the ranges of theirs."""
        for index, tensor in self._params.items():
            quantizer = self.entries[index].current()
            if isinstance(quantizer, QuantizeDequantize):
                with quantizer.compute_encodings():
                    quantizer.observe(tensor)

    def modes(self) -> frozenset[str]:
        """Ways to quantize activations that are in use: of MODES."""
        found = {
            _mode(self.entries[spot.quantizer].current())
            for spot in self._spots.activations
        }
        return frozenset(mode for mode in found if mode is not None)

    def masked_below(self) -> dict[int, float]:
        """By quantizer of an activation, where it leaves masked values alone."""
        return {
            spot.quantizer: bound
            for spot in self._spots.activations
            if (bound := self.entries[spot.quantizer].integer.masked_below) is not None
        }

    def param_feeds(self) -> dict[str, np.ndarray]:
        """Every weight with its quantizer's values, or its own where that is off."""
        feeds: dict[str, np.ndarray] = {}
        for spot in self._spots.params:
            feeds.update(self._kept(spot.quantizer, spot.tensor, self._param_feed))
        return feeds

    def _param_feed(self, index: int, tensor: str) -> dict[str, np.ndarray]:
        value, quantizer = self._params[index], self.entries[index].current()
        if quantizer is not None:
            with torch.no_grad():
                value = quantizer(value)
        return {feed_name("param", index, tensor): _as_array(value)}

    def activation_feeds(self, modes: frozenset[str]) -> dict[str, np.ndarray]:
        """Flags, scales and grids of the activations' quantizers.

        Args:
            modes: those that the graph was made for.

        Raises:
            RuntimeError: a quantizer that is on has no range.
        """
        feeds: dict[str, np.ndarray] = {}
        for index in dict.fromkeys(spot.quantizer for spot in self._spots.activations):
            feeds.update(self._kept(index, modes, self._grid_feeds))
        return feeds

    def _grid_feeds(self, index: int, modes: frozenset[str]) -> dict[str, np.ndarray]:
        quantizer = self.entries[index].current()
        own = _mode(quantizer)
        feeds = {feed_name(mode, index): np.array(mode == own) for mode in modes}
        for mode, dtype in _GRID_TYPES.items():
            if mode not in modes:
                continue
            numbers = (1.0, 1.0, 1.0)  # of no effect
            if mode == own:
                assert isinstance(quantizer, QuantizeDequantize)
                numbers = _grid_of(quantizer)
            for name, number in zip(grid_names(mode), numbers, strict=True):
                feeds[feed_name(name, index)] = np.array(number, dtype)
        return feeds

    def _kept(
        self, index: int, key: Any, make: Callable[[int, Any], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """What `make(index, key)` makes, again only where the quantizer has changed."""
        quantizer = self.entries[index].current()
        state: tuple[Any, ...] = (quantizer,)
        if isinstance(quantizer, QuantizeDequantize):
            for tensor in (quantizer.min, quantizer.max, quantizer.grid):
                state += (id(tensor), tensor._version)
        kept = self._fed.get((index, key))
        if kept is None or kept[0] != state:
            kept = self._fed[index, key] = (state, make(index, key))
        return kept[1]


def _grid_of(quantizer: QuantizeDequantize) -> tuple[float, float, float]:
    """Scale, and the ends of the grid, counted from zero."""
    quantizer._require_range()
    scale, offset = quantizer.get_scale(), quantizer.get_offset()
    assert scale is not None and offset is not None
    low, high = (end + offset.item() for end in quantizer.grid.tolist())
    return scale.item(), low, high


def _mode(quantizer: QuantizerBase | None) -> str | None:
    """How a quantizer of an activation computes; None where it is off."""
    if quantizer is None:
        return None
    if isinstance(quantizer, QuantizeDequantize):
        return WIDE if quantizer.bitwidth >= _FIRST_WIDE_BITWIDTH else INTEGER
    assert quantizer.precision in MODES
    return quantizer.precision


def _as_tensor(array: np.ndarray) -> torch.Tensor:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array).copy())


def _as_array(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.detach().numpy()
