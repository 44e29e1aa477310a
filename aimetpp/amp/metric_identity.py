# SPDX-License-Identifier: BSD-3-Clause
"""Telling one metric from another: a name that changes with what it measures."""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from aimetpp.common.defs import CallbackFunc

_MAX_DEPTH = 8
_PLAIN = str | bytes | int | float | complex
_DATA = torch.Tensor | np.ndarray


def metric_name(callback: Any) -> str:
    """A name that changes with what the callback measures.

    It covers code, plain values, tensors, arrays, data sets and data loaders that the
    callback reaches through its arguments, closures, globals and attributes. Not seen
    are the content of files, and plain values in what a callback may change itself:
    attributes that its methods assign, and lists and dicts that it does not get as
    arguments.
    """
    return f"{plain_name(callback)} {_Digest().of(callback)}"


def plain_name(callback: Any) -> str:
    """What to call the callback in an error."""
    name = getattr(callback, "metric", None)
    if isinstance(name, str):
        return name
    if isinstance(callback, CallbackFunc | functools.partial):
        return plain_name(callback.func)
    return str(getattr(callback, "__qualname__", type(callback).__qualname__))


class _Digest:
    """A hash of a value and of what it refers to."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._functions: set[int] = set()

    def of(self, value: Any) -> str:
        self._add(value, 0)
        return self._hash.hexdigest()[:16]

    def _add(self, value: Any, depth: int) -> None:
        """Feeds in a value that nobody changes."""
        self._hash.update(type(value).__name__.encode())
        if depth > _MAX_DEPTH:
            return
        if isinstance(value, _PLAIN):
            self._hash.update(repr(value).encode())
        elif isinstance(value, types.CodeType):
            self._hash.update(value.co_code)
            self._hash.update(repr(value.co_names).encode())
            self._add(value.co_consts, depth + 1)
        elif isinstance(value, _DATA | list | Mapping):
            self._add_data(value, depth)
        else:
            for part in self._parts(value):
                self._add(part, depth + 1)

    def _parts(self, value: Any) -> Iterator[Any]:
        identity = getattr(value, "metric_identity", None)
        if callable(identity) and not isinstance(value, type):
            yield from identity()
        elif isinstance(value, tuple):
            yield from value
        elif isinstance(value, types.FunctionType):
            if id(value) in self._functions:  # it calls itself
                return
            self._functions.add(id(value))
            yield from (value.__code__, value.__defaults__)
            yield from _closed_over(value)
            yield from _globals_read(value)
        elif isinstance(value, types.MethodType):
            yield value.__func__
            self._add_attributes(value.__self__)
        elif isinstance(value, CallbackFunc):
            yield value.func
            self._add_data(value.args, 0, given=True)
        elif isinstance(value, functools.partial):
            yield value.func
            self._add_data((value.args, value.keywords), 0, given=True)
        elif isinstance(value, DataLoader):
            yield from (value.batch_size, value.dataset)
        elif isinstance(value, Dataset):
            yield from _content(value)
        elif callable(value) and not isinstance(value, type | torch.nn.Module):
            yield type(value).__call__
            self._add_attributes(value)

    def _add_attributes(self, instance: Any) -> None:
        if isinstance(instance, type | torch.nn.Module | types.ModuleType):
            return
        assigned = _assigned_attributes(type(instance))
        for name, value in sorted(getattr(instance, "__dict__", {}).items()):
            fixed = isinstance(value, _PLAIN) and name not in assigned
            self._hash.update(name.encode())
            self._add_data(value, 0, given=fixed)

    def _add_data(self, value: Any, depth: int, given: bool = False) -> None:
        """Feeds in the tensors, arrays and loaders of something that may change.

        A list to which a callback appends its scores must not change its name. What is
        `given` to it as arguments counts whole.
        """
        if depth > _MAX_DEPTH:
            return
        if isinstance(value, torch.Tensor):
            self._add_data(_bytes_of(value.detach()), depth)
        elif isinstance(value, np.ndarray):
            self._hash.update(f"{value.dtype}{value.shape}".encode())
            self._hash.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, DataLoader | Dataset):
            self._add(value, depth + 1)
        elif isinstance(value, Mapping):
            for key in sorted(value, key=str):
                if given:
                    self._hash.update(repr(key).encode())
                self._add_data(value[key], depth + 1, given)
        elif isinstance(value, list | tuple):
            for item in value:
                self._add_data(item, depth + 1, given)
        elif given:
            self._add(value, depth + 1)


def _bytes_of(tensor: torch.Tensor) -> np.ndarray:
    if not tensor.dtype.is_floating_point or tensor.dtype.itemsize > 2:
        return tensor.cpu().resolve_conj().resolve_neg().numpy()
    return tensor.float().cpu().numpy()  # numpy knows no bfloat16


def _content(dataset: Any) -> Iterator[Any]:
    """Plain values and data of a data set, which does not change while it is read."""
    if hasattr(dataset, "__len__"):
        yield len(dataset)
    for name, value in sorted(vars(dataset).items()):
        if isinstance(value, _PLAIN | _DATA | tuple | Dataset):
            yield from (name, value)
        elif isinstance(value, list | dict):
            plain = all(isinstance(item, _PLAIN | tuple) for item in value)
            yield from (name, tuple(value) if plain else value)


def _closed_over(function: types.FunctionType) -> Iterator[Any]:
    """What a function closes over and does not assign itself."""
    assigned = _names(function.__code__, "STORE_DEREF", "DELETE_DEREF")
    for name, cell in zip(
        function.__code__.co_freevars, function.__closure__ or (), strict=True
    ):
        with contextlib.suppress(ValueError):  # a cell without a value yet
            if name not in assigned:
                yield cell.cell_contents


def _assigned_attributes(cls: type) -> set[str]:
    """Attributes that methods assign, such as counters; settings are __init__'s."""
    return {
        attribute
        for base in cls.__mro__
        for name, method in vars(base).items()
        if isinstance(method, types.FunctionType) and name != "__init__"
        for attribute in _names(method.__code__, "STORE_ATTR", "DELETE_ATTR")
    }


def _globals_read(function: types.FunctionType) -> Iterator[Any]:
    """Data, plain values and functions of its own module that a function names."""
    assigned = _names(function.__code__, "STORE_GLOBAL", "DELETE_GLOBAL")
    for name in sorted(_names(function.__code__, "LOAD_GLOBAL") - assigned):
        value = function.__globals__.get(name)
        own = getattr(value, "__module__", None) == function.__module__
        has_identity = not isinstance(value, type) and hasattr(value, "metric_identity")
        if isinstance(value, _PLAIN | _DATA | DataLoader | Dataset | list | dict) or (
            has_identity or (isinstance(value, types.FunctionType) and own)
        ):
            yield from (name, value)


def _names(code: types.CodeType, *opnames: str) -> set[str]:
    """Names that instructions of these kinds are about, nested code included."""
    found = {
        str(instruction.argval)
        for instruction in dis.get_instructions(code)
        if instruction.opname in opnames
    }
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant, *opnames)
    return found
