# SPDX-License-Identifier: BSD-3-Clause
"""How a model is called: arguments by name, and tracers that need them plain.

A quantized module's forward takes (*args, **kwargs) on behalf of the user's own;
tracers name and order inputs by the signature that they see.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree


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

    def arguments(flat: tuple[torch.Tensor, ...]) -> tuple[Any, Any]:
        remaining = iter(flat)
        filled = [
            next(remaining) if isinstance(leaf, torch.Tensor) else leaf
            for leaf in leaves
        ]
        result: tuple[Any, Any] = pytree.tree_unflatten(filled, spec)
        return result

    own_class = type(model)
    if own_class.__call__ is torch.nn.Module.__call__:

        def forward(*flat: torch.Tensor) -> Any:
            inner_args, inner_kwargs = arguments(flat)
            return own_class.forward(model, *inner_args, **inner_kwargs)

        with _replaced_forward(model, forward):
            yield tensors
        return

    # A call of the model's own (Keras's) looks at the arguments before forward does.
    def call(self: Any, *flat: torch.Tensor) -> Any:
        inner_args, inner_kwargs = arguments(flat)
        return own_class.__call__(self, *inner_args, **inner_kwargs)

    model.__class__ = type(own_class.__name__, (own_class,), {"__call__": call})
    try:
        yield tensors
    finally:
        model.__class__ = own_class


@contextmanager
def named_forward(model: torch.nn.Module, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Within the context the model's forward shows its own argument names.

    Keyword-only arguments and those of `kwargs` that its **kwargs takes can be given by
    position too, as TorchScript wants it. A forward with *args stays as it is.
    """
    original = signature_of(model)
    kinds = {p.kind: name for name, p in original.parameters.items()}
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        yield
        return
    rest = kinds.get(inspect.Parameter.VAR_KEYWORD)
    plain = _plain_signature(original, [*kwargs])
    own_forward = type(model).forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = plain.bind(*args, **kwargs).arguments
        named = {n: v for n, v in given.items() if n in original.parameters}
        if rest is not None:
            named[rest] = {n: v for n, v in given.items() if n not in named}
        bound = inspect.BoundArguments(original, named)
        return own_forward(model, *bound.args, **bound.kwargs)

    forward.__signature__ = plain  # type: ignore[attr-defined]
    with _replaced_forward(model, forward):
        yield


def _plain_signature(
    original: inspect.Signature, keywords: Sequence[str]
) -> inspect.Signature:
    """All of its arguments by position or name, and those among `keywords` that it
    takes as **kwargs.
    """
    shown = [
        parameter
        for parameter in original.parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    either = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = {parameter.name for parameter in shown}
    shown += [inspect.Parameter(n, either) for n in keywords if n not in names]
    plain: list[inspect.Parameter] = []
    for parameter in shown:
        default = parameter.default
        if plain and plain[-1].default is not parameter.empty:
            # No argument without a default may follow one that has one.
            default = None if default is parameter.empty else default
        plain.append(parameter.replace(kind=either, default=default))
    return original.replace(parameters=plain)


@contextmanager
def _replaced_forward(
    model: torch.nn.Module, forward: Callable[..., Any]
) -> Iterator[None]:
    model.__dict__["forward"] = forward
    try:
        yield
    finally:
        del model.__dict__["forward"]
