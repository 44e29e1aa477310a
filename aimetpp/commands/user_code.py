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
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from aimetpp.quantsim import QuantizationSimModel


def load_function(name: str) -> Callable[..., Any]:
    """The function that "file.py:function" or "package.module:function" names.

    The file's folder, or the current folder, is put on Python's search path, so that
    its own imports work.

    Raises:
        ValueError: not such a name, no such function, or the file or module raises an
            exception.
        FileNotFoundError: no such file.
        ModuleNotFoundError: no such module.
    """
    place, separator, function = name.rpartition(":")
    is_file = place.endswith(".py")
    is_name = is_file or all(part.isidentifier() for part in place.split("."))
    if not separator or not is_name or not function.isidentifier():
        raise ValueError(
            'a function is named as "file.py:function" or "package.module:function", '
            f"got {name!r}"
        )
    if not is_file:
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
        ValueError: it needs arguments, or raises an exception, which the message
            places; and as `load_function`.
        FileNotFoundError, ModuleNotFoundError: as `load_function`.
    """
    function = load_function(name)
    _check_arguments(name, function, 0)
    with _located(name, _file_of(function)):
        return function()


def load_function_of_model(name: str) -> Callable[[Any], Any]:
    """The function of the model that `name` names. Its exceptions are ValueErrors that
    say where they came from.

    Raises:
        ValueError: it cannot be called with one argument; and as `load_function`.
        FileNotFoundError, ModuleNotFoundError: as `load_function`.
    """
    function = load_function(name)
    if not isinstance(function, types.FunctionType):
        return function  # such as a metric of EvalCallbackFactory
    _check_arguments(name, function, 1)
    return _FunctionOfModel(name, function)


class _FunctionOfModel:
    """As the user's function, but for its exceptions."""

    def __init__(self, name: str, function: types.FunctionType) -> None:
        self.metric = name  # what errors call it
        self._function = function

    def metric_identity(self) -> tuple[Any, ...]:
        return (self._function,)

    def __call__(self, model: Any) -> Any:
        with _located(self.metric, _file_of(self._function)):
            return self._function(model)


def _check_arguments(name: str, function: Callable[..., Any], number: int) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin without one
        return
    try:
        signature.bind(*[None] * number)
    except TypeError as error:
        wanted = "need no arguments" if number == 0 else "take one argument, the model"
        raise ValueError(f"{name} must {wanted}: {error}") from None


def _file_of(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code.co_filename if code else ""


@contextlib.contextmanager
def _located(what: str, file: str) -> Iterator[None]:
    """Exceptions become ValueErrors that say where in `file` they came from: one
    sentence on the command line.
    """
    try:
        yield
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = ([frame for frame in frames if frame.filename == file] or frames)[-1]
        place, text = f"{last.filename}:{last.lineno}", str(error)
        if isinstance(error, SyntaxError):  # of a file, which has no frame
            place, text = f"{error.filename}:{error.lineno}", error.msg
        raise ValueError(
            f"{what} raised {type(error).__name__} at {place}: {text}"
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
        ValueError: it returns something else, a model that cannot be traced, or a
            simulation, which has its config, together with `config_file`; else as
            `load_function`.
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
        return simulate(name, *made, config_file=config_file)
    raise ValueError(
        f"{name} must return a QuantizationSimModel or (model, dummy_input), got "
        f"{type(made).__name__}"
    )


def simulate(
    name: str, model: torch.nn.Module, dummy_input: Any, **settings: Any
) -> QuantizationSimModel:
    """A simulation of what a user's function returned.

    Args:
        name: of the function.
        model: to be simulated in eval mode.
        dummy_input: of the model.
        **settings: further arguments of QuantizationSimModel.

    Raises:
        ValueError: a setting is wrong, or the model does not take the input.
        FileNotFoundError: no such config.
    """
    try:
        return QuantizationSimModel(model.eval(), dummy_input, **settings)
    except (RuntimeError, TypeError) as error:  # the model does not take this input
        raise ValueError(f"{name}: {error}") from error


@functools.cache  # several functions of one file: it runs once
def _load_file(path: Path) -> types.ModuleType:
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


def _load_module(name: str) -> types.ModuleType:
    _put_on_path(Path.cwd())
    if importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"no module {name!r}")
    with _located(name, ""):
        return importlib.import_module(name)


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
