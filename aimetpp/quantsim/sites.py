# SPDX-License-Identifier: BSD-3-Clause
"""What a person sees of a simulation: sites, explanations, the printed report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from aimetpp import _C
from aimetpp.quantization import QuantizeDequantize

if TYPE_CHECKING:
    from aimetpp.amp.simulation import Simulation
    from aimetpp.quantsim.bank import QuantizerBank


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


def list_sites(sim: SiteMethods) -> list[Site]:
    """The sites of a simulation in graph order."""
    graph = sim.graph
    standing = {
        slot.site: slot.get() for entry in sim._bank.entries for slot in entry.slots
    }
    standing.update(sim._bank.unplaced())
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
            sites[site_id] = Site(
                id=site_id,
                kind=record.kind,
                module=call.module,
                call=call.ordinal,
                op=op.kind,
                name=graph.site_name(site_id),
                source=call.source or op.source,
                quantizer=standing.get(site_id),
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


def report(sim: SiteMethods) -> str:
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


class SiteMethods:
    """The part of a simulation that only looks, at what any model has."""

    graph: _C.OpGraph
    placement: _C.Placement
    quant_scheme: str
    config_name: str
    model: Any
    _bank: QuantizerBank

    def sites(self) -> list[Site]:
        """Every site of the model, in graph order."""
        return list_sites(self)

    def _explain_all(self, name: str, sites: list[Site]) -> Explanation:
        """What stands under one name; its rules are those of its sites in turn."""
        parts = tuple(self._explain(site) for site in sites)
        on = sum(part.enabled for part in parts)
        rules = [rule for part in parts for rule in part.rules]
        state = f"{on} of {len(parts)} sites quantized"
        return Explanation(name, on > 0, rules, parts, state)

    def _bias_rounding(self, site: int) -> torch.nn.Module | None:
        """What rounds the bias that this site is, if anything does."""
        return None

    def _explain(self, site: Site) -> Explanation:
        index = self.placement.quantizer_of_site[site.id]
        if index >= 0:
            state = "not quantized: turned off since the simulation was built"
            if site.quantizer is not None:
                state = f"quantized, {site.quantizer.extra_repr()}"
        else:
            state = "not quantized"
            if site.quantizer is not None:
                state = f"quantized by hand, {site.quantizer.extra_repr()}"
            elif (rounding := self._bias_rounding(site.id)) is not None:
                state = f"rounded, {rounding.extra_repr()}"
            cover = _C.quantizer_covering(self.graph, self.placement, site.id)
            if cover >= 0:
                state += f": on the grid of {self._bank.entries[cover].label}"
        rules = self.placement.rules(site.id)
        return Explanation(site.name, index >= 0, rules, (), state)

    @property
    def group_class(self) -> Any:
        """How quantizer groups name its quantizers."""
        from aimetpp.amp.quantizer_groups import QuantizerGroup

        return QuantizerGroup

    @property
    def callback_factory(self) -> Any:
        """What makes built-in metrics of data for it."""
        from aimetpp.amp.evaluation import EvalCallbackFactory

        return EvalCallbackFactory

    def quantizer_groups(self) -> list[Any]:
        """The quantizer groups that automatic mixed precision searches over."""
        from aimetpp.amp.quantizer_groups import find_quantizer_group

        return find_quantizer_group(cast("Simulation", self))[1]

    def bit_ops(self) -> float:
        """Bit-operations of one sample: sum of MACs x activation x param bits."""
        model = _C.build_cost_model(self.graph, self.placement)
        return float(model.bit_ops(self._bank.precisions()))

    def __str__(self) -> str:
        return report(self)
