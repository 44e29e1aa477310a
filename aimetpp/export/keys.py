# SPDX-License-Identifier: BSD-3-Clause
"""Names of sites in files that are keyed by modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimetpp import _C


def activation_keys(graph: _C.OpGraph, site: _C.Site) -> tuple[str, str, str]:
    """Call, kind and slot: ("conv1", "output", "0"), ("block/add_0", "input", "1")."""
    return graph.calls[site.call].name, site.kind, str(site.slot)


def param_key(graph: _C.OpGraph, site: _C.Site) -> str:
    """The parameter's name in the state_dict."""
    call = graph.calls[site.call]
    # A functional op's parameter has its full name already.
    if call.functional or not call.module:
        return site.param
    return f"{call.module}.{site.param}"
