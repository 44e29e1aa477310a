# SPDX-License-Identifier: BSD-3-Clause
"""A user's own functions, named on the command line."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from aimetpp.quantsim import QuantizationSimModel


def load_function(name: str) -> Callable[..., Any]:
    """The function that "file.py:function" or "package.module:function" names.

    The file's folder, or the current folder, is put on Python's search path, so that
    its own imports work.

    Raises:
        ValueError: not such a name, or no such function.
        FileNotFoundError: no such file.
        ModuleNotFoundError: no such module.
    """
    place, separator, function = name.rpartition(":")
    if not separator or not place or not function.isidentifier():
        raise ValueError(
            'a function is named as "file.py:function" or "package.module:function", '
            f"got {name!r}"
        )
    if not place.endswith(".py"):
        module = _load_module(place)
    elif Path(place).is_file():
        module = _load_file(Path(place).resolve())
    else:
        raise FileNotFoundError(f"no file {place!r}")
    found = getattr(module, function, None)
    if not callable(found):
        defined = sorted(
            key
            for key, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", "") == module.__name__
        )
        raise ValueError(
            f"{place} has no function {function!r}; it has "
            f"{', '.join(defined) or 'none'}"
        )
    return found


def call_function(name: str) -> Any:
    """What the function that `name` names returns, called without arguments.

    Raises:
        ValueError: it needs arguments, or raises a ValueError or an OSError, which the
            message places; and as `load_function`.
        FileNotFoundError, ModuleNotFoundError: as `load_function`.
    """
    function = load_function(name)
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin without one
        return function()
    code = getattr(inspect.unwrap(function), "__code__", None)
    try:
        signature.bind()
    except TypeError as error:
        raise ValueError(f"{name} must need no arguments: {error}") from None
    with _located(name, code.co_filename if code else ""):
        return function()


@contextlib.contextmanager
def _located(what: str, file: str) -> Iterator[None]:
    """Errors that the command line prints as one sentence say where in `file` they
    came from; the others have a traceback.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = [frame for frame in frames if frame.filename == file] or frames
        raise ValueError(
            f"{what} raised {type(error).__name__} at "
            f"{place[-1].filename}:{place[-1].lineno}: {error}"
        ) from error


def load_simulation(
    name: str, config_file: str | os.PathLike[str] | None
) -> QuantizationSimModel:
    """The simulation that a user's function makes.

    Args:
        name: of a function without arguments that returns a QuantizationSimModel, or
            a pair (model, dummy_input) to be simulated at 8 bits, not calibrated.
        config_file: for the pair; None: the default config.

    Raises:
        ValueError: it returns something else, or a simulation, which has its config,
            together with `config_file`; else as `load_function`.
        FileNotFoundError: no such file or config.
        ModuleNotFoundError: no such module.
    """
    made = call_function(name)
    if isinstance(made, QuantizationSimModel):
        if config_file is not None:
            raise ValueError(
                f"{name} returns a simulation, which has its config: leave --config "
                "out, or return (model, dummy_input)"
            )
        return made
    if (
        isinstance(made, tuple)
        and len(made) == 2
        and isinstance(made[0], torch.nn.Module)
    ):
        model, dummy_input = made
        return QuantizationSimModel(model.eval(), dummy_input, config_file=config_file)
    raise ValueError(
        f"{name} must return a QuantizationSimModel or (model, dummy_input), got "
        f"{type(made).__name__}"
    )


@functools.cache  # several functions of one file: it runs once
def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _put_on_path(path.parent)
    sys.modules[path.stem] = module  # as for any import: dataclasses look there
    try:
        with _located(path.name, str(path)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _load_module(name: str) -> ModuleType:
    _put_on_path(Path.cwd())
    return importlib.import_module(name)


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
