# SPDX-License-Identifier: BSD-3-Clause
"""A user's model as a graph of ops, without changing the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aimetpp import _C
from aimetpp.nn.wrap import BaseQuantizationMixin, unwrap_all
from aimetpp.quantsim.batch_norm_call import FunctionalBatchNorm
from aimetpp.quantsim.tracing import trace
from aimetpp.quantsim.wrapping import prepare


@dataclass
class ReadModel:
    """A model and what one traced forward of it shows."""

    model: torch.nn.Module
    graph: _C.OpGraph
    batch_norm_calls: dict[int, FunctionalBatchNorm]  # by index of the call

    def module_of(self, op: int) -> torch.nn.Module:
        """The leaf module that the op is, or the module that calls it."""
        name = self.graph.calls[self.graph.ops[op].call].module
        return self.model.get_submodule(name)


def names_of(
    model: torch.nn.Module, modules: Iterable[torch.nn.Module], argument: str
) -> list[str]:
    """The dotted names of modules of a model.

    Raises:
        ValueError: one is not in the model; the message starts with `argument`.
    """
    names = {module: name for name, module in model.named_modules()}
    chosen = list(modules)
    for module in chosen:
        if module not in names:
            raise ValueError(
                f"{argument} names a {type(module).__name__} that is no module of the "
                "model"
            )
    return [names[module] for module in chosen]


def read_model(
    who: str,
    model: torch.nn.Module,
    input_shapes: Sequence[Any] | None,
    dummy_input: Any,
) -> ReadModel:
    """Traces `model` in eval mode with `dummy_input`, or random input of these shapes.

    Args:
        who: the function that asks, for messages.
        model: left as it is.
        input_shapes: one shape, or a list of one shape per input.
        dummy_input: a tensor, a tuple or list (positional) or a dict (keywords).

    Raises:
        TypeError: `model` is not a module, or the input holds no tensor.
        ValueError: neither shapes nor an input.
        RuntimeError: a quantized model, or one that cannot be traced.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"{who}: model must be a torch.nn.Module, got {type(model).__name__}"
        )
    if any(isinstance(module, BaseQuantizationMixin) for module in model.modules()):
        raise RuntimeError(
            f"{who} takes the float model, before a simulation is made of it"
        )
    if dummy_input is None:
        dummy_input = _random_input(who, model, input_shapes)
    try:
        prepare(model)
        traced = trace(model, dummy_input, who)
    finally:
        unwrap_all(model)
    return ReadModel(model, traced.graph, traced.tracer.batch_norm_calls)


def _random_input(
    who: str, model: torch.nn.Module, input_shapes: Sequence[Any] | None
) -> tuple[torch.Tensor, ...]:
    if not input_shapes:
        raise ValueError(f"{who}: input_shapes or dummy_input is required, got neither")
    one = all(isinstance(size, int) for size in input_shapes)
    shapes = [input_shapes] if one else input_shapes
    like = next(
        (p for p in model.parameters() if p.is_floating_point()), torch.empty(0)
    )
    return tuple(
        torch.rand(tuple(shape), device=like.device, dtype=like.dtype)
        for shape in shapes
    )


def replace_module(
    model: torch.nn.Module, old: torch.nn.Module, new: torch.nn.Module
) -> None:
    """Puts `new` wherever `old` is a child of a module of `model`."""
    new.train(old.training)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
