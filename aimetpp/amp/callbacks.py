# SPDX-License-Identifier: BSD-3-Clause
"""Calling a user's evaluation, and telling one metric from another."""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import types
from collections.abc import Callable
from typing import Any

import torch

from aimetpp.common.defs import CallbackFunc
from aimetpp.common.inference import inference


def check_callback(callback: Any, argument: str) -> Callable[[Any], Any]:
    """A callable of the model.

    Raises:
        TypeError: neither a CallbackFunc nor callable.
    """
    if not callable(callback):
        raise TypeError(
            f"{argument} must be a CallbackFunc or a callable of the model, got "
            f"{type(callback).__name__}"
        )
    return callback


def score_of(
    callback: Callable[[Any], Any], model: torch.nn.Module, argument: str
) -> float:
    """What a callback says of the model.

    Raises:
        TypeError: it returned something that is not a number.
    """
    with inference(model):
        result = callback(model)
    if not isinstance(result, str | bytes):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            return float(result)
    raise TypeError(
        f"{argument} ({_plain_name(callback)}) must return a number, got "
        f"{type(result).__name__}"
    )


def metric_name(callback: Any) -> str:
    """A name that changes with what the callback measures.

    As far as its code and plain arguments tell: data in a loader or a file are not
    looked at.
    """
    digest = hashlib.sha256()
    _digest(callback, digest.update)
    return f"{_plain_name(callback)} {digest.hexdigest()[:16]}"


def _plain_name(callback: Any) -> str:
    name = getattr(callback, "metric", None)
    if isinstance(name, str):
        return name
    if isinstance(callback, CallbackFunc):
        return _plain_name(callback.func)
    if isinstance(callback, functools.partial):
        return _plain_name(callback.func)
    return str(getattr(callback, "__qualname__", type(callback).__qualname__))


def _digest(value: Any, update: Callable[[bytes], None], depth: int = 0) -> None:
    """Feeds the hash with code and immutable plain values.

    Of anything else, such as a list that a callback appends to, with the type only.
    """
    update(type(value).__name__.encode())
    if depth > 6:
        return
    parts: tuple[Any, ...] = ()
    if isinstance(value, str | bytes | int | float | complex):
        update(repr(value).encode())
    elif isinstance(getattr(value, "metric", None), str):
        update(value.metric.encode())
    elif isinstance(value, types.CodeType):
        update(value.co_code)
        update(repr(value.co_names).encode())
        parts = value.co_consts
    elif isinstance(value, types.FunctionType):
        parts = (value.__code__, value.__defaults__, *_constants_of(value))
    elif isinstance(value, types.MethodType):
        parts = (value.__func__,)
    elif isinstance(value, CallbackFunc):
        parts = (value.func, value.args)
    elif isinstance(value, functools.partial):
        parts = (value.func, value.args, *sorted(value.keywords.items()))
    elif isinstance(value, tuple):
        parts = value
    elif callable(value) and not isinstance(value, type | torch.nn.Module):
        parts = (type(value).__call__,)
    for part in parts:
        _digest(part, update, depth + 1)


def _constants_of(function: types.FunctionType) -> list[Any]:
    """What a function closes over and does not assign itself."""
    assigned = _assigned(function.__code__)
    found = []
    for name, cell in zip(
        function.__code__.co_freevars, function.__closure__ or (), strict=True
    ):
        with contextlib.suppress(ValueError):  # a cell without a value yet
            if name not in assigned:
                found.append(cell.cell_contents)
    return found


def _assigned(code: types.CodeType) -> set[str]:
    found = {
        str(instruction.argval)
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("STORE_DEREF", "DELETE_DEREF")
    }
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _assigned(constant)
    return found
