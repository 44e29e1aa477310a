# SPDX-License-Identifier: BSD-3-Clause
"""The quantizers of a simulation, one per entry of the placement, and their slots."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import torch

from aimetpp import _C
from aimetpp.common.defs import QuantizationDataType
from aimetpp.common.precision import Precision
from aimetpp.nn.wrap import BaseQuantizationMixin, QuantizationMixin
from aimetpp.quantization import (
    FloatQuantizeDequantize,
    QuantizeDequantize,
    QuantizerBase,
)
from aimetpp.quantization.float import FLOAT8_DTYPES, FLOAT_DTYPES
from aimetpp.quantsim.entries import Entry, Slot
from aimetpp.quantsim.param_read import ParamRead
from aimetpp.quantsim.tracing import Tracer, functional_key


class QuantizerBank:
    """Makes the quantizers of a placement and puts them into their slots.

    What is in the slots is the truth: a user may set one to None. Subclasses say where
    the slots are.
    """

    def __init__(self, graph: _C.OpGraph, placement: _C.Placement, scheme: str) -> None:
        # Each look at an attribute of the graph copies its whole list.
        self._calls, self._sites = graph.calls, graph.sites
        self._shapes = {p.site: tuple(p.shape) for op in graph.ops for p in op.params}
        self.entries: list[Entry] = []
        for spec in placement.quantizers:
            entry = Entry(
                graph.site_name(spec.sites[0]), spec.kind, self._make(spec, scheme)
            )
            entry.integer.label = entry.label
            entry.slots = [slot for site in spec.sites for slot in self.slots_of(site)]
            self.entries.append(entry)
            self.set_precision(len(self.entries) - 1, spec.precision)

    def _make(self, spec: _C.QuantizerSpec, scheme: str) -> QuantizeDequantize:
        shape: tuple[int, ...] = ()
        axis = None
        device = self._device_of(spec.sites[0])
        if spec.channel_axis >= 0:
            full = self._shapes[spec.sites[0]]
            axis = spec.channel_axis
            shape = tuple(n if i == axis else 1 for i, n in enumerate(full))
        precision = Precision.parse(spec.precision)
        is_integer = precision.data_type == QuantizationDataType.int
        low, high = spec.constraints
        quantizer = QuantizeDequantize(
            shape,
            precision.bitwidth if is_integer else 16,
            spec.symmetric,
            strict_symmetric=spec.strict_symmetric and spec.symmetric,
            unsigned_symmetric=spec.unsigned_symmetric and spec.symmetric,
            # Bounds fixed by the config leave nothing to search for.
            scheme="min_max" if low is not None or high is not None else scheme,
            channel_axis=axis,
        )
        quantizer.fixed_min, quantizer.fixed_max = low, high
        quantizer.masked_below = spec.masked_below
        if spec.kind != "param":
            quantizer.tensors_per_forward = len(spec.sites)
        return quantizer.to(device)

    def _device_of(self, site: int) -> torch.device:
        raise NotImplementedError

    def slots_of(self, site: int) -> list[Slot]:
        """Where the quantizer of a site stands, whether it has one or not."""
        raise NotImplementedError

    def replace_integer(self, index: int, quantizer: QuantizeDequantize) -> None:
        """Puts another integer quantizer in the place of an entry's, and on.

        A parameter is calibrated at once where the old quantizer was.
        """
        entry = self.entries[index]
        calibrated = entry.integer.is_initialized()
        quantizer.label = entry.label
        entry.integer = quantizer.to(entry.integer.min.device)
        for slot in entry.slots:
            slot.set(quantizer)
        if calibrated and entry.slots[0].read is not None:
            quantizer.calibrate_on(entry.slots[0].reference())

    # -- precisions ---------------------------------------------------------

    def precision(self, index: int) -> str:
        """The precision of an entry: "int8", "fp16"; "fp32" where it is off."""
        current = self.entries[index].current()
        return "fp32" if current is None else current.precision

    def precisions(self) -> list[str]:
        """The precision of every entry."""
        return [self.precision(index) for index in range(len(self.entries))]

    def set_precision(self, index: int, precision: str) -> None:
        """Switches the quantizer, deriving the range from kept statistics, or from
        the parameter where that has changed. A range set otherwise keeps its ends.
        """
        entry = self.entries[index]
        entry.adopt()
        precision = _C.parse_precision(precision)
        quantizer: QuantizerBase | None = None
        if precision in FLOAT_DTYPES:
            self._check_float(index, precision)
            quantizer = entry.float_of(precision)
        elif precision != "fp32":
            quantizer = entry.integer
            if quantizer.precision != precision:
                quantizer.bitwidth = Precision.parse(precision).bitwidth
            elif entry.current() is not quantizer:
                quantizer.renew_range()
        for slot in entry.slots:
            if not slot.excluded:
                slot.set(quantizer)

    def _check_float(self, index: int, precision: str) -> None:
        """Raises ValueError where an entry cannot have a narrow float precision."""
        entry = self.entries[index]
        if precision in FLOAT8_DTYPES and entry.integer.blocks:
            raise ValueError(
                f"the precision of {entry.label!r} cannot be {precision}, which has a "
                "scale per tensor or per channel: it has ranges per block"
            )

    def adopt_standing(self) -> None:
        """Makes quantizers that a user put into slots those of their entries."""
        for entry in self.entries:
            entry.adopt()

    def check_standing(self, precisions: list[str]) -> None:
        """Whether each entry can be brought to its precision.

        Raises:
            ValueError: where that is to change, it is excluded from quantization, or a
                user has put in a module of another kind, or different quantizers where
                one is shared; or one quantizer stands at two entries that are to
                differ.
        """
        first: dict[int, int] = {}  # entry by id of its quantizer
        for index, entry in enumerate(self.entries):
            standing = [slot.get() for slot in entry.slots]
            found = {id(module): module for module in standing if module is not None}
            for identity in found:
                other = first.setdefault(identity, index)
                if precisions[other] != precisions[index]:
                    raise ValueError(
                        f"one quantizer stands at {self.entries[other].label!r} and "
                        f"at {entry.label!r}, so it cannot be {precisions[other]} and "
                        f"{precisions[index]}"
                    )
            if self.precision(index) == precisions[index]:
                continue
            if entry.is_excluded():
                raise ValueError(
                    f"{entry.label!r} cannot be {precisions[index]}: it is excluded "
                    "from quantization"
                )
            if precisions[index] in FLOAT_DTYPES:
                self._check_float(index, precisions[index])
            for module in found.values():
                if not isinstance(module, QuantizeDequantize | FloatQuantizeDequantize):
                    raise ValueError(
                        f"the precision of {entry.label!r} cannot be set: a "
                        f"{type(module).__name__} stands there, not a "
                        "QuantizeDequantize or FloatQuantizeDequantize"
                    )
            if len(found) > 1:
                raise ValueError(
                    f"{len(entry.slots)} sites, {entry.label!r} the first, share one "
                    f"quantizer, but {len(found)} different ones stand there: put one "
                    "into all of them"
                )

    def unplaced_slots(self) -> list[Slot]:
        """Those with a quantizer that a user put where the placement has none."""
        placed = {slot.site for entry in self.entries for slot in entry.slots}
        others = (
            slot
            for site, record in enumerate(self._sites)
            if site not in placed and record.call >= 0
            for slot in self.slots_of(site)
        )
        return [slot for slot in others if isinstance(slot.get(), QuantizerBase)]

    def unplaced(self) -> dict[int, QuantizerBase]:
        """By site, quantizers that a user put where the placement has none."""
        found = ((slot.site, slot.get()) for slot in self.unplaced_slots())
        return {site: q for site, q in found if isinstance(q, QuantizerBase)}

    def modules(self) -> list[QuantizerBase]:
        """The quantizer of each entry: the one in its slots, else the integer one."""
        return [entry.current() or entry.integer for entry in self.entries]

    def snapshot(self) -> Callable[[], None]:
        """Remembers slots, bit-widths and ranges; the function returned puts them
        back.
        """
        self.adopt_standing()
        places = [slot for entry in self.entries for slot in entry.slots]
        slots = [(slot, slot.get()) for slot in [*places, *self.unplaced_slots()]]
        integers = {id(q): q for _, q in slots if isinstance(q, QuantizeDequantize)}
        integers |= {id(entry.integer): entry.integer for entry in self.entries}
        states = [(integer, integer.state()) for integer in integers.values()]
        floats = [made for entry in self.entries for made in entry.floats.values()]
        scales = [(made, made.scale) for made in floats]

        def restore() -> None:
            for slot, quantizer in slots:
                slot.set(quantizer)
            for integer, state in states:
                integer.set_state(state)
            for made, scale in scales:
                made.scale = scale

        return restore

    # -- all slots at once --------------------------------------------------

    @contextlib.contextmanager
    def swapped(
        self,
        replace: Callable[[Slot, QuantizerBase], torch.nn.Module | None],
        off_too: bool = False,
    ) -> Iterator[None]:
        """Within the context every quantizer that is on is replaced in its slot, also
        one that a user put where the placement has none.

        Args:
            replace: makes what stands there instead.
            off_too: also fills the slots of quantizers that are off.
        """
        slots: list[tuple[QuantizeDequantize | None, Slot]] = [
            (entry.integer, slot) for entry in self.entries for slot in entry.slots
        ]
        slots += [(None, slot) for slot in self.unplaced_slots()]
        standing = [(integer, slot, slot.get()) for integer, slot in slots]
        try:
            for integer, slot, quantizer in standing:
                if isinstance(quantizer, QuantizerBase):
                    slot.set(replace(slot, quantizer))
                elif quantizer is None and integer is not None and off_too:
                    slot.set(replace(slot, integer))
            yield
        finally:
            for _, slot, quantizer in standing:
                slot.set(quantizer)

    def forget_unobserved(self) -> None:
        """Statistics of integer quantizers that do not stand in their slots are of
        data or weights from before the last calibration: no range may come of them.
        """
        self.adopt_standing()
        for entry in self.entries:
            integer = entry.integer
            if entry.is_observing() or not integer.has_statistics():
                continue
            if integer.follows_statistics():
                integer.reset()
            else:
                integer.statistics = None


class ModuleBank(QuantizerBank):
    """The quantizers of a PyTorch model, which stand in its quantized modules."""

    def __init__(
        self,
        model: torch.nn.Module,
        graph: _C.OpGraph,
        placement: _C.Placement,
        tracer: Tracer,
        scheme: str,
    ) -> None:
        self._modules = dict(model.named_modules())
        self.param_reads = tracer.param_reads
        super().__init__(graph, placement, scheme)

    def _device_of(self, site: int) -> torch.device:
        module = self._modules[self._calls[self._sites[site].call].module]
        nearest = itertools.chain(module.parameters(), self._modules[""].parameters())
        tensor = next(nearest, None)
        return torch.device("cpu") if tensor is None else tensor.device

    def slots_of(self, site: int) -> list[Slot]:
        record = self._sites[site]
        call = self._calls[record.call]
        module = self._modules[call.module]
        assert isinstance(module, BaseQuantizationMixin)
        if call.functional:
            container = module.functional_quantizers
            if record.kind == "param":
                read = self.param_reads[site]
                key = functional_key(call.type, call.ordinal, "input", read.slot)
                return [Slot(site, container, key, self._modules[read.module], read)]
            key = functional_key(call.type, call.ordinal, record.kind, record.slot)
            return [Slot(site, container, key)]
        assert isinstance(module, QuantizationMixin)
        first_input = call.ordinal * module._aimetpp.num_inputs
        if site in self.param_reads:  # another module's parameter, as an argument
            read = self.param_reads[site]
            key = str(first_input + read.slot)
            owner = self._modules[read.module]
            return [Slot(site, module.input_quantizers, key, owner, read)]
        if record.kind == "param":
            key = record.param
            read = ParamRead(0, call.module, key)
            return [Slot(site, module.param_quantizers, key, module, read)]
        if record.kind == "input":
            index = first_input + record.slot
            return [Slot(site, module.input_quantizers, str(index))]
        index = call.ordinal * module._aimetpp.num_outputs + record.slot
        return [Slot(site, module.output_quantizers, str(index))]

    def borrowing_slots(self) -> list[Slot]:
        """Those that read a parameter without being in its owner's
        `param_quantizers`.
        """
        placed = (slot for entry in self.entries for slot in entry.slots)
        return [
            slot
            for slot in (*placed, *self.unplaced_slots())
            if slot.owner is not None
            and slot.container is not getattr(slot.owner, "param_quantizers", None)
        ]
