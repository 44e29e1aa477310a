# SPDX-License-Identifier: BSD-3-Clause
"""Telling one metric from another: a name that changes with what it measures."""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from aimetpp.common.defs import CallbackFunc

_MAX_DEPTH = 8
_LONGEST_TEXT = 60
_FEW = 20  # entries of an argument that are told apart by name
_PLAIN = str | bytes | int | float | complex
_DATA = torch.Tensor | np.ndarray


@dataclass(frozen=True)
class MetricIdentity:
    """What changes with what a callback measures.

    It covers code, plain values, tensors, arrays, data sets and data loaders that the
    callback reaches through its arguments, closures, globals and attributes. Not seen
    are the content of files, and plain values in what a callback may change itself:
    attributes that its methods assign, and lists and dicts that it does not get as
    arguments.

    Attributes:
        name: of the callback, with a hash of all but `values`.
        values: the plain values, as text, by where they are: "`rank` in evaluate".
    """

    name: str
    values: dict[str, str]


def metric_identity(callback: Any) -> MetricIdentity:
    """The identity of a callback; reads the data that it reaches."""
    digest = _Digest()
    name = f"{plain_name(callback)} {digest.of(callback)}"
    return MetricIdentity(name, digest.values)


def merged(first: dict[str, str], second: dict[str, str]) -> dict[str, str]:
    """The values of both, each of them where they differ."""
    both = {**second, **first}
    for place in first.keys() & second.keys():
        if first[place] != second[place]:
            both[place] = f"{first[place]}, {second[place]}"
    return both


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
        self.values: dict[str, str] = {}

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

    def _add_read(self, name: str, owner: str, value: Any, given: bool = False) -> None:
        """Feeds in what `owner` reads by a name, or is given as an argument."""
        several = given and isinstance(value, Mapping | list | tuple)
        if several and len(value) <= _FEW and name.count("[") < _MAX_DEPTH:
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, item in sorted(pairs, key=lambda pair: str(pair[0])):
                self._add_read(f"{name}[{key!r}]", owner, item, given)
            return
        if not isinstance(value, _PLAIN):
            self._hash.update(name.encode())
            if given:
                self._add_data(value, 0, given=True)
            else:
                self._add(value, 1)
            return
        place, text = f"`{name}` in {owner}", repr(value)
        if len(text) > _LONGEST_TEXT:
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            text = f"{text[: _LONGEST_TEXT // 2]}... {digest}"
        # There may be another function of that name.
        self.values = merged(self.values, {place: text})

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
            yield value.__code__
            for name, item in (
                *_defaults(value),
                *_closed_over(value),
                *_globals_read(value),
            ):
                self._add_read(name, value.__qualname__, item)
        elif isinstance(value, types.MethodType):
            yield value.__func__
            self._add_attributes(value.__self__)
        elif isinstance(value, CallbackFunc):
            yield value.func
            self._add_read(
                "args", f"CallbackFunc({plain_name(value)})", value.args, True
            )
        elif isinstance(value, functools.partial):
            yield value.func
            given: list[tuple[int | str, Any]] = [*enumerate(value.args)]
            given += value.keywords.items()
            for key, item in given:
                self._add_read(str(key), f"partial({plain_name(value)})", item, True)
        elif isinstance(value, DataLoader):
            yield from (value.batch_size, value.dataset)
            yield value.batch_sampler or value.sampler
        elif isinstance(value, Sampler):
            yield from self._sampler_parts(value)
        elif isinstance(value, Dataset):
            yield from _content(value)
        elif callable(value) and not isinstance(value, type | torch.nn.Module):
            yield type(value).__call__
            self._add_attributes(value)

    def _sampler_parts(self, sampler: Any) -> Iterator[Any]:
        """What tells which samples it takes, but for the data set."""
        assigned = _assigned_attributes(type(sampler))
        for name, value in sorted(vars(sampler).items()):
            if isinstance(value, _PLAIN) and name not in assigned:
                self._add_read(name, type(sampler).__name__, value)
            elif isinstance(value, list) and all(isinstance(i, _PLAIN) for i in value):
                yield tuple(value)
            elif isinstance(value, _DATA | tuple | Sampler):
                yield value

    def _add_attributes(self, instance: Any) -> None:
        if isinstance(instance, type | torch.nn.Module | types.ModuleType):
            return
        assigned = _assigned_attributes(type(instance))
        for name, value in sorted(getattr(instance, "__dict__", {}).items()):
            if isinstance(value, _PLAIN) and name not in assigned:
                self._add_read(name, type(instance).__qualname__, value)
            else:
                self._hash.update(name.encode())
                self._add_data(value, 0)

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


def _defaults(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Arguments that a function need not get."""
    values = function.__defaults__ or ()
    count = function.__code__.co_argcount
    names = function.__code__.co_varnames[count - len(values) : count]
    yield from zip(names, values, strict=True)
    yield from sorted((function.__kwdefaults__ or {}).items())


def _closed_over(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function closes over and does not assign itself."""
    assigned = _names(function.__code__, "STORE_DEREF", "DELETE_DEREF")
    for name, cell in zip(
        function.__code__.co_freevars, function.__closure__ or (), strict=True
    ):
        with contextlib.suppress(ValueError):  # a cell without a value yet
            if name not in assigned:
                yield name, cell.cell_contents


def _assigned_attributes(cls: type) -> set[str]:
    """Attributes that methods assign, such as counters; settings are __init__'s."""
    return {
        attribute
        for base in cls.__mro__
        for name, method in vars(base).items()
        if isinstance(method, types.FunctionType) and name != "__init__"
        for attribute in _names(method.__code__, "STORE_ATTR", "DELETE_ATTR")
    }


def _globals_read(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Data, plain values and functions of its own module that a function names."""
    assigned = _names(function.__code__, "STORE_GLOBAL", "DELETE_GLOBAL")
    for name in sorted(_names(function.__code__, "LOAD_GLOBAL") - assigned):
        value = function.__globals__.get(name)
        own = getattr(value, "__module__", None) == function.__module__
        has_identity = not isinstance(value, type) and hasattr(value, "metric_identity")
        if isinstance(value, _PLAIN | _DATA | DataLoader | Dataset | list | dict) or (
            has_identity or (isinstance(value, types.FunctionType) and own)
        ):
            yield name, value


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
