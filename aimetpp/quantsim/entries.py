# SPDX-License-Identifier: BSD-3-Clause
"""One entry of a simulation's placement: its quantizers, and where they stand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from aimetpp.quantization import (
    FloatQuantizeDequantize,
    QuantizeDequantize,
    QuantizerBase,
)
from aimetpp.quantization.float import FLOAT8_DTYPES, FLOAT_DTYPES
from aimetpp.quantization.parameter_reference import ParameterReference
from aimetpp.quantsim.param_read import ParamRead


@dataclass
class Slot:
    """Where a quantizer stands: an entry of a quantized module's list or dict."""

    site: int
    container: torch.nn.Module
    key: str
    # The parameter that the slot's quantizer reads, for param sites.
    owner: torch.nn.Module | None = None
    read: ParamRead | None = None
    # Part of an excluded layer: no change of precision puts a quantizer there.
    excluded: bool = False

    def get(self) -> torch.nn.Module | None:
        return self.container._modules.get(self.key)

    def set(self, quantizer: torch.nn.Module | None) -> None:
        self.container._modules[self.key] = quantizer

    def parameter(self) -> torch.Tensor | None:
        if self.owner is None or self.read is None:
            return None
        return self.read.value(self.owner)

    def reference(self) -> ParameterReference:
        assert self.read is not None
        return ParameterReference(self.owner, self.read.value)


def require_stored(slot: Slot, what: str) -> None:
    """Raises ValueError where the weight that a slot reads is no parameter itself."""
    assert slot.owner is not None and slot.read is not None
    if slot.read.name not in slot.owner._parameters:
        raise ValueError(
            f"{what}: {slot.read.path} is computed from others, but a parameter that "
            "can be set is required. Make it one before the simulation is built "
            "(remove_weight_norm, parametrize.remove_parametrizations, prune.remove)"
        )


def _standing(
    places: Iterable[tuple[torch.nn.Module, str]],
) -> QuantizerBase | None:
    """The quantizer in the first place, a container and a key, that has one."""
    for container, key in places:
        quantizer = container._modules.get(key)
        if isinstance(quantizer, QuantizerBase):
            return quantizer
    return None


@dataclass
class Entry:
    """What an entry of the placement has for each precision."""

    label: str
    kind: str
    integer: QuantizeDequantize
    slots: list[Slot] = field(default_factory=list)
    floats: dict[str, FloatQuantizeDequantize] = field(default_factory=dict)

    def current(self) -> QuantizerBase | None:
        return self.lookup()()

    def lookup(self) -> Callable[[], QuantizerBase | None]:
        """`current`, without holding more of the model than what the slots are in."""
        return functools.partial(
            _standing, [(slot.container, slot.key) for slot in self.slots]
        )

    def float_of(self, precision: str) -> FloatQuantizeDequantize:
        """The entry's quantizer of a narrow float, with the scale that calibration
        yields now, or a user's own.
        """
        made = self.floats.get(precision)
        if precision in FLOAT8_DTYPES:
            if made is None or made.calibrated not in (None, self.integer):
                dtype = FLOAT_DTYPES[precision]
                made = FloatQuantizeDequantize.scaled_by(self.integer, dtype)
                made = made.to(self.integer.min.device)
            elif made.calibrated is not None:
                made.renew_scale()
        elif made is None:
            made = FloatQuantizeDequantize(FLOAT_DTYPES[precision])
        made.label = made.label or self.label
        made.masked_below = self.integer.masked_below
        self.floats[precision] = made
        return made

    def is_observing(self) -> bool:
        """Whether calibration reaches the integer quantizer where the entry stands."""
        current = self.current()
        return self.integer in (current, getattr(current, "calibrated", None))

    def is_excluded(self) -> bool:
        """Whether all places where its quantizer would stand are excluded."""
        return bool(self.slots) and all(slot.excluded for slot in self.slots)

    def adopt(self) -> None:
        """Makes the quantizer that a user put into the slots the entry's own."""
        current = self.current()
        if isinstance(current, QuantizeDequantize):
            current.label = current.label or self.label
            self.integer = current
        elif (
            isinstance(current, FloatQuantizeDequantize)
            and current.precision in FLOAT_DTYPES
        ):
            self.floats[current.precision] = current
