# SPDX-License-Identifier: BSD-3-Clause
"""Quantizers whose precision a person decided, which no search changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aimetpp.common.text import shortened
from aimetpp.quantsim.inspection import Site

if TYPE_CHECKING:
    from aimetpp import _C
    from aimetpp.quantsim.bank import QuantizerBank


class PinningMethods:
    """The part of QuantizationSimModel that remembers what is pinned.

    Manual mixed precision pins the quantizers that its requests reach; automatic
    mixed precision leaves pinned ones at their precision.
    """

    graph: _C.OpGraph
    placement: _C.Placement
    _bank: QuantizerBank
    _pinned: set[int]

    def pinned_sites(self) -> list[str]:
        """Names of the sites whose quantizer is pinned, in graph order."""
        quantizers = self.placement.quantizers
        sites = [site for index in self._pinned for site in quantizers[index].sites]
        return [self.graph.site_name(site) for site in sorted(sites)]

    def pin(self, sites: Iterable[str | Site]) -> None:
        """Pins the quantizers of these sites at whatever precision they have.

        Raises:
            ValueError: a site that is not in the model or has no quantizer; nothing
                is pinned then.
        """
        self._pinned |= self._indices_of(sites, "pin")

    def pinned_quantizers(self) -> frozenset[int]:
        """Indices in the placement of the pinned quantizers."""
        return frozenset(self._pinned)

    def pin_quantizers(self, indices: Iterable[int]) -> None:
        """Pins quantizers by their index in the placement."""
        self._pinned.update(indices)

    def unpin(self, sites: Iterable[str | Site] | None = None) -> None:
        """Undoes `pin`; None: of all sites.

        Raises:
            ValueError: as `pin`.
        """
        if sites is None:
            self._pinned.clear()
        else:
            self._pinned -= self._indices_of(sites, "unpin")

    def _indices_of(self, sites: Iterable[str | Site], caller: str) -> set[int]:
        if isinstance(sites, str | Site):
            sites = [sites]
        names = [site.name if isinstance(site, Site) else site for site in sites]
        index_of = {
            self.graph.site_name(site): index
            for index, spec in enumerate(self.placement.quantizers)
            for site in spec.sites
        }
        unknown = [name for name in names if name not in index_of]
        if unknown:
            raise ValueError(
                f"{caller}: no quantizer stands at {shortened(unknown)}; "
                "sim.sites() lists the sites"
            )
        return {index_of[name] for name in names}
