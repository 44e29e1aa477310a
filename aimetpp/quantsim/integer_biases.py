# SPDX-License-Identifier: BSD-3-Clause
"""Biases rounded as integer hardware rounds them: on or off for a whole simulation."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from aimetpp import _C
from aimetpp.nn.integer_bias import BiasSource, IntegerBias

if TYPE_CHECKING:
    from aimetpp.quantsim.bank import QuantizerBank
    from aimetpp.quantsim.entries import Slot


def _rounding_slot(slot: Slot) -> Slot:
    """Where a bias is rounded: of a layer beside its quantizers, so that whoever looks
    through those finds quantizers alone; of a functional op in the quantizer's slot.
    """
    leaf = slot.owner
    if leaf is None or slot.container is not getattr(leaf, "param_quantizers", None):
        return slot
    container = leaf._modules.setdefault("bias_rounding", torch.nn.ModuleDict())
    assert container is not None
    return dataclasses.replace(slot, container=container)


class IntegerBiasMethods:
    """The part of QuantizationSimModel that rounds biases."""

    graph: _C.OpGraph
    placement: _C.Placement
    _bank: QuantizerBank
    _bias_slots: dict[int, Slot]  # by site; empty while biases are float

    @property
    def int32_bias(self) -> bool:
        """Whether biases of convolutions and linear layers are rounded to 32-bit
        integers in steps of input scale x weight scale, as exported ONNX files have
        them by default. Setting it has its effect in the next forward.

        A bias stays float where its layer's input or weight is on no integer grid,
        where 32 bits do not hold it, and while calibration runs; one that the config
        gives a quantizer keeps that.
        """
        return self._int32_bias

    @int32_bias.setter
    def int32_bias(self, rounded: bool) -> None:
        if not isinstance(rounded, bool):
            raise TypeError(
                f"int32_bias must be True or False, got {type(rounded).__name__}"
            )
        for slot in self._bias_slots.values():
            if isinstance(slot.get(), IntegerBias):
                slot.set(None)
            if slot.owner is not None:
                slot.owner._modules.pop("bias_rounding", None)
        self._int32_bias = rounded
        self._bias_slots = self._place_integer_biases() if rounded else {}

    def _place_integer_biases(self) -> dict[int, Slot]:
        """A module for every bias, for all calls that read it."""
        slots: dict[int, Slot] = {}
        sources: dict[tuple[int, str], dict[int, BiasSource]] = {}
        entries = self._bank.entries
        for bias in _C.integer_biases(self.graph, self.placement):
            (slot,) = self._bank.slots_of(bias.site)
            if slot.get() is not None:  # a quantizer, put there by hand
                continue
            slots[bias.site] = slot = _rounding_slot(slot)
            source = BiasSource(
                entries[bias.input].lookup(), entries[bias.weight].lookup(), bias.factor
            )
            call = self.graph.calls[self.graph.sites[bias.site].call]
            of_slot = sources.setdefault((id(slot.container), slot.key), {})
            of_slot[0 if call.functional else call.ordinal] = source
        num_calls = Counter(
            call.module for call in self.graph.calls if not call.functional
        )
        for site, slot in slots.items():
            call = self.graph.calls[self.graph.sites[site].call]
            of_slot = sources[id(slot.container), slot.key]
            count = 1 if call.functional else num_calls[call.module]
            slot.set(IntegerBias(call.module, [of_slot.get(k) for k in range(count)]))
        return slots

    @contextlib.contextmanager
    def constant_biases(self) -> Iterator[None]:
        """Within the context rounded biases do not follow the scales."""
        with contextlib.ExitStack() as stack:
            for slot in self._bias_slots.values():
                module, bias = slot.get(), slot.parameter()
                if isinstance(module, IntegerBias) and bias is not None:
                    stack.enter_context(module.constant(bias))
            yield
