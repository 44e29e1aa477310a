# SPDX-License-Identifier: BSD-3-Clause
"""Sites of tensors that a forward makes of constants, in exports."""

from __future__ import annotations

from typing import Any

import torch

from aimetpp import _C

_OP = "aimetpp::constant_site"


def find(graph: _C.OpGraph) -> set[int]:
    """Ids of the sites, but those of parameters, whose tensors are made of constants
    alone: `torch.linspace(0, 1, n)`, and what is computed from it. `n` may still come
    from the shape of an input.
    """
    constant = [tensor.origin == "constant" for tensor in graph.tensors]
    found: set[int] = set()
    for op in graph.ops:  # in the order in which they run
        inputs = [constant[tensor] for tensor in op.inputs if tensor >= 0]
        if inputs and all(inputs) and not op.params:
            for tensor in op.outputs:
                constant[tensor] = True
            found.update(op.output_sites)
        sites = zip(op.inputs, op.input_sites, strict=True)
        found.update(site for tensor, site in sites if tensor >= 0 and constant[tensor])
    return found - {-1}


def mark(x: torch.Tensor, site: int) -> torch.Tensor:
    """`x` through the marker op of a site that `find` has found.

    Under a tracer a constant gets a marker that TorchScript's passes leave alone, and
    stands in the trace as its value: they would not evaluate what makes it any more.
    """
    internals: Any = torch._C  # whose stubs lack these functions
    state = internals._get_tracing_state()
    if state is None:
        return torch.ops.aimetpp.site(x, site)
    kinds = _kinds_above(internals._get_value_trace(x))
    if "prim::Param" in kinds:  # buffers, and shapes of inputs
        return torch.ops.aimetpp.site(x, site)
    if _OP not in kinds:
        internals._set_tracing_state(None)
        try:
            x = x.detach().clone()
        finally:
            internals._set_tracing_state(state)
    return torch.ops.aimetpp.constant_site(x, site)


def _kinds_above(value: torch._C.Value) -> set[str]:
    """Of the nodes that a value is computed by."""
    pending, seen = [value.node()], set()
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending.extend(given.node() for given in node.inputs())
    return {node.kind() for node in seen}
