# SPDX-License-Identifier: BSD-3-Clause
"""Quantization-aware training: what is learnt, in which parameter groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from aimetpp.common.text import shortened
from aimetpp.quantization import QuantizeDequantize, QuantizerBase
from aimetpp.quantization.learning import DEFAULT_MOMENTUM, LEARNING
from aimetpp.quantsim.entries import require_stored

if TYPE_CHECKING:
    from aimetpp import _C
    from aimetpp.quantsim.bank import QuantizerBank


class TrainingMethods:
    """The part of QuantizationSimModel that prepares and ends training."""

    model: torch.nn.Module
    graph: _C.OpGraph
    _bank: QuantizerBank

    def learn_ranges(
        self,
        activations: str | None = "min_max",
        params: str | None = "min_max",
        momentum: float = DEFAULT_MOMENTUM,
    ) -> None:
        """Chooses what training changes of the integer quantizers' ranges.

        A simulation starts with "min_max" for both. Call it before the optimizer is
        made and before a saved state is loaded. Frozen encodings
        (`set_and_freeze_param_encodings`, `load_encodings` with requires_grad=False)
        stay frozen.

        Args:
            activations: "min_max": both ends of the range are learnt; "scale": the
                step of the grid, as in LSQ; "moving_average": nothing by the loss,
                the range follows that of the batches, each process's own; None:
                nothing, the range stays as calibrated.
            params: the same for parameters, but for "moving_average".
            momentum: the weight of a batch in a moving average.

        Raises:
            ValueError: something else; nothing is changed then.
        """
        if params == "moving_average":
            raise ValueError(
                'learn_ranges: params must be "min_max", "scale" or None: a moving '
                "average is of data, got 'moving_average'"
            )
        if not 0 < momentum <= 1:
            raise ValueError(
                f"learn_ranges: momentum must be above 0 and at most 1, got {momentum}"
            )
        for name, what in (("activations", activations), ("params", params)):
            if what not in LEARNING:
                raise ValueError(
                    f"learn_ranges: {name} must be one of {LEARNING}, got {what!r}"
                )
        self._bank.adopt_standing()
        chosen = []
        for entry in self._bank.entries:
            quantizer = entry.integer
            if quantizer.has_learnable_range and not quantizer.min.requires_grad:
                continue  # frozen by hand
            what = params if entry.kind == "param" else activations
            quantizer.require_learnable(what)
            chosen.append((quantizer, what, entry.kind != "param"))
        for quantizer, what, samples_first in chosen:
            quantizer.learn(what, samples_first, momentum)

    def quantizer_parameters(self) -> Iterator[torch.nn.Parameter]:
        """The learnable parameters of all quantizers that are on, each once, for an
        optimizer group of their own; frozen ones are left out.
        """
        seen: set[int] = set()
        for module in self.model.modules():
            if isinstance(module, QuantizerBase):
                for parameter in module.parameters(recurse=False):
                    if parameter.requires_grad and id(parameter) not in seen:
                        seen.add(id(parameter))
                        yield parameter

    def model_parameters(self) -> Iterator[torch.nn.Parameter]:
        """The model's own parameters (float, also while the model computes with their
        quantized values), each once: all but the quantizers'.
        """
        ranges = {
            id(parameter)
            for module in self.model.modules()
            if isinstance(module, QuantizerBase)
            for parameter in module.parameters(recurse=False)
        }
        return (p for p in self.model.parameters() if id(p) not in ranges)

    def order_ranges(self) -> list[str]:
        """Exchanges the ends of ranges whose `min` has been trained past their `max`.

        That takes a learning rate that is large beside the range. Such a quantizer
        computes with a negative step, which no file and no runtime has. Exchanged, an
        asymmetric grid has the same values; a symmetric one loses its outermost.

        Returns:
            The names of the quantizers whose ends were exchanged.
        """
        standing = [(entry.label, entry.current()) for entry in self._bank.entries]
        site_name = self.graph.site_name
        unplaced = self._bank.unplaced().items()
        standing += [(site_name(site), quantizer) for site, quantizer in unplaced]
        exchanged = []
        with torch.no_grad():
            for name, quantizer in standing:
                if not isinstance(quantizer, QuantizeDequantize):
                    continue
                if not quantizer.is_initialized() or not quantizer.is_crossed():
                    continue
                low, high = quantizer.ends()
                quantizer.set_range(torch.minimum(low, high), torch.maximum(low, high))
                exchanged.append(name)
        return exchanged

    def fold_param_quantizers(self) -> None:
        """Replaces every quantized parameter by its quantized value, once, so that
        forwards need not do it again. Outputs stay the same; encodings are kept for
        export. For use after training: the float values are gone, and the parameters
        no longer require gradients. A new bit-width or range quantizes from here.

        Raises:
            RuntimeError: a parameter's quantizer has no range; nothing is changed.
            ValueError: a weight is computed from other parameters (weight norm,
                pruning); nothing is changed.
        """
        folded = [
            (entry, entry.slots[0])
            for entry in self._bank.entries
            if entry.kind == "param" and entry.current() is not None
        ]
        missing = [
            entry.label
            for entry, _ in folded
            if not (current := entry.current()) or not current.is_initialized()
        ]
        if missing:
            raise RuntimeError(
                "fold_param_quantizers: these parameters' quantizers have no range "
                f"yet: {shortened(missing)}; run sim.compute_encodings first"
            )
        for _, slot in folded:
            require_stored(slot, "fold_param_quantizers")
        with torch.no_grad():
            for entry, slot in folded:
                quantizer, parameter = entry.current(), slot.parameter()
                if parameter is None or quantizer is None:
                    continue
                parameter.copy_(quantizer(parameter))
                if isinstance(quantizer, QuantizeDequantize):
                    quantizer.set_folded()
                    quantizer.note_parameter()
                assert slot.owner is not None and slot.read is not None
                owned = slot.owner._parameters[slot.read.name]
                if owned is not None:
                    owned.requires_grad_(False)
