# SPDX-License-Identifier: BSD-3-Clause
"""A user's model as a graph of ops, without changing the model."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.modules.lazy import LazyModuleMixin

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
    dummy_input: Any

    @functools.cached_property
    def tensor_ids(self) -> set[int]:
        """Ids of the parameters and buffers."""
        return {id(t) for t in (*self.model.parameters(), *self.model.buffers())}

    @functools.cached_property
    def overlapping(self) -> set[int]:
        """Ids of the parameters and buffers that are others' memory too."""
        return _overlapping(self.model)

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
    _require_values(who, model)
    if dummy_input is None:
        dummy_input = _random_input(who, model, input_shapes)
    try:
        prepare(model)
        traced = trace(model, dummy_input, who)
    finally:
        unwrap_all(model)
    return ReadModel(model, traced.graph, traced.tracer.batch_norm_calls, dummy_input)


def _require_values(who: str, model: torch.nn.Module) -> None:
    for name, module in model.named_modules():
        lazy: Any = module
        if isinstance(module, LazyModuleMixin) and lazy.has_uninitialized_params():
            raise RuntimeError(
                f"{who}: the {type(module).__name__} {name!r} has no parameters yet: "
                "run the model once, so that it takes their shapes from its input"
            )


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


def _overlapping(model: torch.nn.Module) -> set[int]:
    spans = []
    for tensor in {id(t): t for t in (*model.parameters(), *model.buffers())}.values():
        if tensor.numel() > 0 and tensor.layout == torch.strided and not tensor.is_meta:
            sizes = zip(tensor.shape, tensor.stride(), strict=True)
            last = sum((size - 1) * stride for size, stride in sizes)
            start = tensor.data_ptr()
            end = start + (last + 1) * tensor.element_size()
            spans.append((str(tensor.device), start, end, id(tensor)))
    spans.sort()
    found: set[int] = set()
    # The one that reaches furthest so far, on the same device.
    reach: tuple[str, int, int] | None = None
    for device, start, end, key in spans:
        if reach is not None and reach[0] == device and start < reach[1]:
            found |= {reach[2], key}
        if reach is None or reach[0] != device or end > reach[1]:
            reach = device, end, key
    return found


@contextlib.contextmanager
def unchanged_on_error(model: torch.nn.Module) -> Iterator[None]:
    """Puts parameters, buffers and child modules back where an exception leaves the
    context. Their values are kept meanwhile.
    """
    modules = list(model.modules())
    saved = [
        (holder, dict(holder))
        for module in modules
        for holder in (module._parameters, module._buffers, module._modules)
    ]
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}.values()
    values = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    except BaseException:
        for holder, content in saved:
            holder.clear()
            holder.update(content)  # type: ignore[arg-type]
        with torch.no_grad():
            for tensor, value in values:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
        raise


def replace_module(
    model: torch.nn.Module, old: torch.nn.Module, new: torch.nn.Module
) -> None:
    """Puts `new` wherever `old` is a child of a module of `model`."""
    new.train(old.training)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
