# SPDX-License-Identifier: BSD-3-Clause
"""What a person sees of a simulation: sites, explanations, the printed report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class Explanation:
    """Why a site is quantized or not.

    Attributes:
        site: the site's name.
        enabled: True where the config gave it a quantizer.
        rules: (section, rule, effect) in the order in which they were applied.
    """

    site: str
    enabled: bool
    rules: list[tuple[str, str, str]]

    def __str__(self) -> str:
        lines = [f"{self.site}: {'quantized' if self.enabled else 'not quantized'}"]
        lines += [f"  {s}: {rule}: {effect}" for s, rule, effect in self.rules]
        return "\n".join(lines)


def list_sites(sim: QuantizationSimModel) -> list[Site]:
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
    encoding = quantizer.get_encodings() if hasattr(quantizer, "get_encodings") else None
    if encoding and "min" in encoding:
        low, high = min(encoding["min"]), max(encoding["max"])
        text += f", range [{low:.4g}, {high:.4g}]"
    return text


def report(sim: QuantizationSimModel) -> str:
    """A table of every call and what is quantized around it."""
    sites = list_sites(sim)
    on = [site for site in sites if site.quantizer is not None]
    lines = [
        f"QuantizationSimModel of {type(sim.model).__name__}: {len(on)} of {len(sites)} "
        f"sites quantized by {len(sim.quantizers_by_index)} quantizers, config "
        f"{sim.config_name}, scheme {sim.quant_scheme}",
        f"{'site':<40} {'op':<16} quantizer",
    ]
    shown = (site for site in sites if site.quantizer is not None or site.kind == "output")
    lines += [f"{s.name:<40} {s.op:<16} {_state(s.quantizer)}" for s in shown]
    return "\n".join(lines)
