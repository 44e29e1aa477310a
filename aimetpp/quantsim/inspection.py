# SPDX-License-Identifier: BSD-3-Clause
"""What a person sees of a simulation: sites, explanations, the printed report."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from aimetpp import _C
from aimetpp.nn.runtime import ModuleRecord
from aimetpp.nn.wrap import BaseQuantizationMixin, QuantizationMixin, kept_weight_bytes
from aimetpp.quantization import QuantizeDequantize, QuantizerBase

if TYPE_CHECKING:
    from aimetpp.quantsim.bank import QuantizerBank
    from aimetpp.quantsim.simulation import QuantizationSimModel


@dataclass(frozen=True)
class Site:
    """One place where a tensor can be quantized.

    Attributes:
        id: its number, as in the graph.
        kind: "input", "output" or "param".
        module: dotted name of the module ("" is the root); for a functional op the
            module that calls it.
        call: ordinal of the call, for a functional op among its kind in the module.
        op: aten base name without underscore ("conv2d", "add").
        name: unique: "conv1", "relu:1" (second call), "layer1.0/add_0",
            "conv1.input.0", "conv1.weight".
        source: "file.py:line" of the call.
        quantizer: what stands there now, or None.
    """

    id: int
    kind: str
    module: str
    call: int
    op: str
    name: str
    source: str
    quantizer: torch.nn.Module | None


def _bytes(tensors: Iterable[torch.Tensor], counted: set[int]) -> int:
    """Bytes of the tensors' storages, except those in `counted`, which grows."""
    total = 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in counted:
            counted.add(storage.data_ptr())
            total += storage.nbytes()
    return total


@dataclass(frozen=True)
class Explanation:
    """Why a site, or a module's sites, are quantized or not.

    Attributes:
        site: the site's name, or the module's.
        enabled: True where the config gave it, or one of its sites, a quantizer.
        rules: (section, rule, effect) in the order in which they were applied.
        parts: of a module: the explanation of each of its sites.
        state: what stands there now: "quantized, int8, symmetric", or why there is
            nothing: "not quantized: on the grid of relu1".
    """

    site: str
    enabled: bool
    rules: list[tuple[str, str, str]]
    parts: tuple[Explanation, ...] = ()
    state: str = ""

    def __str__(self) -> str:
        lines = [f"{self.site}: {self.state}"]
        if self.parts:
            return "\n".join(lines + [str(part) for part in self.parts])
        lines += [f"  {s}: {rule}: {effect}" for s, rule, effect in self.rules]
        return "\n".join(lines)


def list_sites(sim: InspectionMethods) -> list[Site]:
    """The sites of a simulation in graph order."""
    graph, placement = sim.graph, sim.placement
    standing = {
        slot.site: slot.get() for entry in sim._bank.entries for slot in entry.slots
    }
    sites: dict[int, Site] = {}
    for op in graph.ops:
        if op.call < 0:
            continue
        ids = [*op.input_sites, *(p.site for p in op.params), *op.output_sites]
        for site_id in ids:
            if site_id < 0 or site_id in sites:
                continue
            record = graph.sites[site_id]
            call = graph.calls[record.call]
            on = placement.quantizer_of_site[site_id] >= 0
            sites[site_id] = Site(
                id=site_id,
                kind=record.kind,
                module=call.module,
                call=call.ordinal,
                op=op.kind,
                name=graph.site_name(site_id),
                source=call.source or op.source,
                quantizer=standing.get(site_id) if on else None,
            )
    return list(sites.values())


def _state(quantizer: torch.nn.Module | None) -> str:
    if quantizer is None:
        return "-"
    text = str(quantizer.extra_repr())
    if isinstance(quantizer, QuantizeDequantize):
        low, high = quantizer.get_min(), quantizer.get_max()
        if low is not None and high is not None:
            text += f", range [{low.min().item():.4g}, {high.max().item():.4g}]"
    return text


def report(sim: InspectionMethods) -> str:
    """A table of every call and what is quantized around it."""
    sites = list_sites(sim)
    on = [site for site in sites if site.quantizer is not None]
    lines = [
        f"QuantizationSimModel of {type(sim.model).__name__}: {len(on)} of "
        f"{len(sites)} sites quantized by {len(sim._bank.entries)} quantizers, config "
        f"{sim.config_name}, scheme {sim.quant_scheme}",
        f"{'site':<40} {'op':<16} quantizer",
    ]
    shown = (
        site for site in sites if site.quantizer is not None or site.kind == "output"
    )
    lines += [f"{s.name:<40} {s.op:<16} {_state(s.quantizer)}" for s in shown]
    return "\n".join(lines)


class InspectionMethods:
    """The part of QuantizationSimModel that only looks."""

    model: torch.nn.Module
    graph: _C.OpGraph
    placement: _C.Placement
    quant_scheme: str
    config_name: str
    _config_text: str
    _bank: QuantizerBank

    @property
    def untraced_ops(self) -> str:
        """What a functional op that was not traced does: "error" or "warn"."""
        return next((record.untraced for record in self._records()), "error")

    @untraced_ops.setter
    def untraced_ops(self, action: str) -> None:
        if action not in ("error", "warn"):
            raise ValueError(f'untraced_ops must be "error" or "warn", got {action!r}')
        for record in self._records():
            record.untraced = action

    def _records(self) -> Iterator[ModuleRecord]:
        for module in self.model.modules():
            if isinstance(module, BaseQuantizationMixin):
                yield module._aimetpp

    def sites(self) -> list[Site]:
        """Every site of the model, in graph order."""
        return list_sites(self)

    def explain(self, site_or_module: Site | str | torch.nn.Module) -> Explanation:
        """Which rule of which config section turned a site on or off.

        Args:
            site_or_module: a Site or its name; or a module of `sim.model` or its
                dotted name, for all its sites and those of the modules inside it.

        Raises:
            TypeError: something else.
            ValueError: no such site or module.
        """
        if isinstance(site_or_module, torch.nn.Module):
            names = [n for n, m in self.model.named_modules() if m is site_or_module]
            if not names:
                raise ValueError("explain: the module is not part of sim.model")
            site_or_module = names[0]
        if isinstance(site_or_module, Site):
            return self._explain(site_or_module)
        if not isinstance(site_or_module, str):
            raise TypeError(
                "explain: a Site, a module or a name is required, got "
                f"{type(site_or_module).__name__}"
            )
        name = site_or_module
        sites = self.sites()
        is_module = name in dict(self.model.named_modules())
        named = [site for site in sites if site.name == name]
        if named and not is_module:
            return self._explain(named[0])
        prefix = f"{name}." if name else ""
        inside = [s for s in sites if s.module == name or s.module.startswith(prefix)]
        if not inside and not is_module:
            raise ValueError(f"explain: no site or module is named {name!r}")
        parts = tuple(self._explain(site) for site in inside)
        on = sum(part.enabled for part in parts)
        rules = [rule for part in parts for rule in part.rules]
        state = f"{on} of {len(parts)} sites quantized"
        if not parts:
            state = "not quantized"
            effect = "off: it makes and reads no tensor in the traced forward"
            rules = [("graph", "reachability", effect)]
        return Explanation(name or "the model", on > 0, rules, parts, state)

    def _explain(self, site: Site) -> Explanation:
        index = self.placement.quantizer_of_site[site.id]
        if index >= 0:
            state = "not quantized: turned off since the simulation was built"
            if site.quantizer is not None:
                state = f"quantized, {site.quantizer.extra_repr()}"
        else:
            state = "not quantized"
            cover = _C.quantizer_covering(self.graph, self.placement, site.id)
            if cover >= 0:
                state += f": on the grid of {self._bank.entries[cover].label}"
        rules = self.placement.rules(site.id)
        return Explanation(site.name, index >= 0, rules, (), state)

    @property
    def functional_quantizers(self) -> dict[str, torch.nn.Module | None]:
        """Output quantizers of functional ops, by site name."""
        return {
            site.name: site.quantizer
            for site in self.sites()
            if self.graph.calls[self.graph.sites[site.id].call].functional
            and site.kind == "output"
        }

    def named_qmodules(self) -> Iterator[tuple[str, QuantizationMixin]]:
        """(dotted name, module) of every quantized leaf module."""
        for name, module in self.model.named_modules():
            if isinstance(module, QuantizationMixin):
                yield name, module

    def qmodules(self) -> Iterator[QuantizationMixin]:
        """Every quantized leaf module."""
        return (module for _, module in self.named_qmodules())

    def named_quantizers(self) -> Iterator[tuple[str, QuantizerBase]]:
        """(dotted name, quantizer) of every quantizer that is on, shared ones once."""
        for name, module in self.model.named_modules():
            if isinstance(module, QuantizerBase):
                yield name, module

    def quantizer_groups(self) -> list[Any]:
        """The quantizer groups that automatic mixed precision searches over."""
        from aimetpp.amp.quantizer_groups import find_quantizer_group

        return find_quantizer_group(cast("QuantizationSimModel", self))[1]

    def bit_ops(self) -> float:
        """Bit-operations of one sample: sum of MACs x activation x param bits."""
        model = _C.build_cost_model(self.graph, self.placement)
        return float(model.bit_ops(self._bank.precisions()))

    def memory_report(self) -> dict[str, int]:
        """Bytes that the simulation holds, by kind.

        Returns:
            "parameters" and "buffers": the model's own. "quantizer_ranges": minima,
            maxima and grids of all quantizers, also of those that are off.
            "statistics": what calibration keeps. "derived_ranges": the ranges of the
            bit-widths that the quantizers had so far. "cached_weights": quantized
            weights kept from one forward to the next. "total": the sum. Tensors that
            share memory are counted once.
        """
        quantizers = dict.fromkeys(entry.integer for entry in self._bank.entries)
        quantizers.update(
            dict.fromkeys(
                quantizer
                for _, quantizer in self.named_quantizers()
                if isinstance(quantizer, QuantizeDequantize)
            )
        )
        ranges = [t for q in quantizers for t in (q.min, q.max, q.grid)]
        derived = [t for q in quantizers for ends in q._ranges.values() for t in ends]
        counted = {t.untyped_storage().data_ptr() for t in ranges}
        report = {
            "parameters": _bytes(self.model.parameters(), counted),
            "buffers": _bytes(self.model.buffers(), counted),
            "quantizer_ranges": _bytes(ranges, set()),
            "statistics": sum(
                q.statistics.num_bytes for q in quantizers if q.statistics is not None
            ),
            "derived_ranges": _bytes(derived, set()),
            "cached_weights": kept_weight_bytes(self.model),
        }
        return {**report, "total": sum(report.values())}

    def fingerprint(self) -> str:
        """SHA-256 of graph, weights, config, scheme and calibration statistics."""
        digest = hashlib.sha256()
        for text in (self.graph.to_text(), self._config_text, self.quant_scheme):
            digest.update(text.encode())
        own = {id(p) for _, q in self.named_quantizers() for p in q.parameters()}
        for name, parameter in self.model.state_dict(keep_vars=True).items():
            if not isinstance(parameter, torch.Tensor) or "_quantizers." in name:
                continue
            if id(parameter) not in own:
                digest.update(name.encode())
                data = parameter.detach().cpu().contiguous()
                digest.update(data.flatten().view(torch.uint8).numpy().tobytes())
        for entry in self._bank.entries:
            statistics = entry.integer.statistics
            if statistics is not None:
                digest.update(statistics.to_bytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        return report(self)
