# SPDX-License-Identifier: BSD-3-Clause
"""Nested structures of tensors."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch.utils import _pytree as pytree


def know_dataclasses(tree: Any) -> None:
    """Makes PyTorch's pytree functions look into the dataclass instances in `tree`, as
    they look into lists and dicts, from now on.
    """
    for leaf in pytree.tree_leaves(tree):
        cls = type(leaf)
        if dataclasses.is_dataclass(cls):
            pytree.register_pytree_node(cls, _fields_of, _from_fields)
            know_dataclasses([leaf])


def _fields_of(instance: Any) -> tuple[list[Any], Any]:
    names = [f.name for f in dataclasses.fields(instance)]
    return [getattr(instance, name) for name in names], (type(instance), tuple(names))


def _from_fields(values: Any, context: Any) -> Any:
    cls, names = context
    instance = cls.__new__(cls)
    for name, value in zip(names, values, strict=True):
        object.__setattr__(instance, name, value)  # frozen ones, too
    return instance
