# SPDX-License-Identifier: BSD-3-Clause
"""How a model is called: arguments by name, and tracers that need them plain.

A quantized module's forward takes (*args, **kwargs) on behalf of the user's own;
tracers name and order inputs by the signature that they see.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree

_UNNAMED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def signature_of(model: torch.nn.Module) -> inspect.Signature:
    """The signature of the model's own forward, without self."""
    forward = getattr(type(model), "_aimetpp_original_forward", type(model).forward)
    signature = inspect.signature(forward)
    parameters = list(signature.parameters.values())[1:]
    return signature.replace(parameters=parameters)


def tensors_by_name(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The flattened tensor arguments: "x", "boxes_0", "boxes_1", "state_h"."""
    named: dict[str, torch.Tensor] = {}
    signature = signature_of(model)
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        is_unnamed = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        leaves, _ = pytree.tree_flatten_with_path(value)
        for path, leaf in leaves:
            if isinstance(leaf, torch.Tensor):
                parts = [str(getattr(k, "idx", getattr(k, "key", k))) for k in path]
                named["_".join(parts if is_unnamed else [name, *parts])] = leaf
    return named


def run_example(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """The model's result for an example input.

    Raises:
        RuntimeError: it does not run with it; the message holds the tensors' shapes.
    """
    try:
        return model(*args, **kwargs)
    except Exception as error:
        leaves = pytree.tree_leaves((args, kwargs))
        shapes = [tuple(x.shape) for x in leaves if isinstance(x, torch.Tensor)]
        raise RuntimeError(
            f"export: the model does not run with this example input (tensor shapes "
            f"{shapes}), which must be like the simulation's dummy_input: "
            f"{type(error).__name__}: {error}"
        ) from error


@contextmanager
def eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Within the context every module is in eval mode; afterwards as before."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was in training.items():
            module.training = was


@contextmanager
def flat_forward(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Within the context the model takes its tensors one by one, by position.

    Whatever in the arguments is not a tensor stays as it is in `args` and `kwargs`.

    Yields:
        The tensors to call it with, in the order of `tensors_by_name`.
    """
    bound = signature_of(model).bind(*args, **kwargs)
    leaves, spec = pytree.tree_flatten((bound.args, bound.kwargs))
    tensors = tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
    own_forward = type(model).forward

    # `added`: what a __call__ of the model's own (Keras's) gives its forward.
    def forward(*flat: torch.Tensor, **added: Any) -> Any:
        remaining = iter(flat)
        filled = [
            next(remaining) if isinstance(leaf, torch.Tensor) else leaf
            for leaf in leaves
        ]
        inner_args, inner_kwargs = pytree.tree_unflatten(filled, spec)
        return own_forward(model, *inner_args, **{**added, **inner_kwargs})

    with _replaced_forward(model, forward):
        yield tensors


@contextmanager
def named_forward(model: torch.nn.Module) -> Iterator[None]:
    """Within the context the model's forward shows its own argument names.

    Keyword-only arguments can be given by position too, as TorchScript wants it. A
    forward with *args or **kwargs stays as it is.
    """
    original = signature_of(model)
    kinds = [parameter.kind for parameter in original.parameters.values()]
    if any(kind in _UNNAMED for kind in kinds):
        yield
        return
    plain = original.replace(
        parameters=[
            parameter.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
            for parameter in original.parameters.values()
        ]
    )
    own_forward = type(model).forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = plain.bind(*args, **kwargs).arguments
        bound = inspect.BoundArguments(original, given)
        return own_forward(model, *bound.args, **bound.kwargs)

    forward.__signature__ = plain  # type: ignore[attr-defined]
    with _replaced_forward(model, forward):
        yield


@contextmanager
def _replaced_forward(
    model: torch.nn.Module, forward: Callable[..., Any]
) -> Iterator[None]:
    model.__dict__["forward"] = forward
    try:
        yield
    finally:
        del model.__dict__["forward"]
