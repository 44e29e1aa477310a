# SPDX-License-Identifier: BSD-3-Clause
"""Before and after tracing: the model's modules wrapped, and given their slots."""

from __future__ import annotations

import torch
from torch.nn.utils.parametrize import is_parametrized

from aimetpp.nn.computed import PARAMETRIZATIONS, weight_names
from aimetpp.nn.wrap import (
    is_leaf,
    may_call_functional_ops,
    wrap_frame,
    wrap_leaf,
)
from aimetpp.quantsim.tracing import Tracer


def prepare(model: torch.nn.Module) -> None:
    """Wraps every leaf, and every other module as a frame, in place."""
    computing: tuple[str, ...] = ()  # where weights are computed: nothing to see
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"module {name!r} is a {type(module).__name__}, which cannot be traced "
                "with the rest of the model: use the module it was made of"
            )
        # A bare Module cannot be called: it holds parameters, or a place for hooks.
        if isinstance(module, torch.nn.Identity) or type(module) is torch.nn.Module:
            continue
        if name.startswith(computing) and computing:
            continue
        if is_parametrized(module):
            computing += (f"{name}.{PARAMETRIZATIONS}".lstrip("."),)
        if is_leaf(module, name):
            wrap_leaf(module, name)
        elif may_call_functional_ops(module) or name == "":
            wrap_frame(module, name)


def settle(model: torch.nn.Module, tracer: Tracer) -> None:
    """Gives every wrapped module its slots, after tracing.

    Modules that called no functional op stay wrapped, so that one they call later
    is noticed.
    """
    for name, module in list(model.named_modules()):
        record = getattr(module, "_aimetpp", None)
        if record is None:
            continue
        if hasattr(module, "input_quantizers"):
            record.num_calls = tracer.num_calls.get(name, 0)
            record.num_inputs, record.num_outputs = tracer.slots.get(name, (0, 0))
            calls = max(record.num_calls, 1)
            module.input_quantizers.extend([None] * (record.num_inputs * calls))
            module.output_quantizers.extend([None] * (record.num_outputs * calls))
            module.param_quantizers.update(
                {param: None for param in weight_names(module)}
            )
            continue
        record.starts = tracer.frame_starts.get(name, [])
        record.sequence = tracer.sequence
        record.functional = tracer.functional.get(name, {})
        if not record.functional:
            continue
        # Not by assignment, which libraries on top of PyTorch redefine.
        module.add_module("functional_quantizers", record.quantizers)
        for call in record.functional.values():
            for key in (*call.inputs, *call.outputs):
                record.quantizers[key] = None
