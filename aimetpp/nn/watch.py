# SPDX-License-Identifier: BSD-3-Clause
"""Noticing what a forward leaves behind: random numbers drawn, a model changed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from aimetpp import _C

# Attributes that forwards of any model set, and put back or need not: recurrent layers
# note which weights they had last.
_OWN = frozenset(
    ("_aimetpp_running", "_parameters", "_buffers", "_modules", "_flat_weight_refs")
)


class Watch:
    """The state of a model and of random generators, to compare with later.

    Seen are parameters, buffers, and attributes of modules: values, and which items
    a list or dict holds; and what their code reaches by closures and global names.

    Args:
        model: the model.
        modules: of it, without its quantizers.
        left_out: names of the children that hold those.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        modules: list[torch.nn.Module],
        left_out: frozenset[str],
    ) -> None:
        self._model = model
        self._modules = modules
        self._left_out = left_out
        self._random = _random_state(modules)
        self._stamp = _C.model_stamp(model, left_out)
        self._code = _C.code_state(modules, left_out)
        self._attributes = [_attributes(module) for module in modules]

    def change(self) -> str:
        """What has changed, or ""."""
        if not _same(self._random, _random_state(self._modules)):
            return "the model draws random numbers"
        if self._stamp != _C.model_stamp(self._model, self._left_out):
            return "the model changes its parameters, buffers or modes"
        if self._code != _C.code_state(self._modules, self._left_out):
            return "the model's code changes global values or variables around it"
        for module, before in zip(self._modules, self._attributes, strict=True):
            after = _attributes(module)
            for name in before.keys() | after.keys():
                if name not in before or name not in after:
                    return f"{type(module).__name__} sets its attribute {name!r}"
                if not _same(before[name], after[name]):
                    return f"{type(module).__name__} changes its attribute {name!r}"
        return ""


def _attributes(module: torch.nn.Module) -> dict[str, Any]:
    record = module.__dict__.get("_aimetpp")
    computed = () if record is None else record.computed
    return {
        name: _copied(value)
        for name, value in module.__dict__.items()
        if name not in _OWN and name not in computed
    }


def _copied(value: Any) -> Any:
    """A list, dict or set as it is now: one that is changed stays the same object."""
    if isinstance(value, dict):
        return tuple(value.items())
    if isinstance(value, list | set):
        return tuple(value)
    if isinstance(value, torch.Tensor) and not value.is_inference():
        return (value, value._version)
    return value


def _same(a: Any, b: Any) -> bool:
    """Whether two states hold the same objects, or equal plain values."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, bytes | str | int | float):
        return bool(a == b)
    return False


def _random_state(modules: list[torch.nn.Module]) -> tuple[Any, ...]:
    states = [
        random.getstate(),
        np.random.get_state(),
        torch.random.get_rng_state().numpy(),
    ]
    tensors = [x for module in modules for x in module._parameters.values()]
    devices = {x.device for x in tensors if x is not None}
    states += [
        torch.cuda.get_rng_state(device).numpy()
        for device in sorted(devices, key=str)
        if device.type == "cuda"
    ]
    return tuple(states)
