# SPDX-License-Identifier: BSD-3-Clause
"""Precisions for a model's inputs or outputs, nested as the model nests them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aimetpp.common.precision import is_precision, precision_name


def flatten_activation(
    activation: Any, structure: Any, count: int, argument: str
) -> list[str | None]:
    """What a user asked of model inputs or outputs, one entry per tensor.

    Args:
        activation: one precision for all, or a list, tuple or dict nested like
            `structure`, in which None leaves a tensor (or a branch) as it is and one
            precision in place of a branch is for all of it. Missing dict keys are None.
        structure: the model's, with the index of each tensor, None where it is no
            tensor. A structure that holds one thing only may be given without its
            outer tuple.
        count: number of tensors.
        argument: what to call `activation` in an error.

    Returns:
        One entry for all, no entry where `activation` is None, else `count` entries.

    Raises:
        TypeError: something in it is no precision.
        ValueError: a structure of another shape.
    """
    if activation is None:
        return []
    if is_precision(activation):
        return [precision_name(activation, argument)]
    if not isinstance(activation, list | tuple | Mapping):
        precision_name(activation, argument)
    entries: list[str | None] = [None] * count
    if isinstance(structure, list | tuple) and len(structure) == 1:
        has_outer = not isinstance(activation, Mapping) and len(activation) == 1
        if not has_outer and isinstance(structure[0], list | tuple | Mapping):
            structure = structure[0]
    _fill(entries, activation, structure, argument, structure)
    return entries


def _fill(
    entries: list[str | None], asked: Any, structure: Any, argument: str, whole: Any
) -> None:
    def mismatch(found: str) -> ValueError:
        return ValueError(
            f"{argument} must be one precision, or precisions (or None) nested like "
            f"{_describe(whole)}; got {found}"
        )

    if asked is None:
        return
    if is_precision(asked):
        name = precision_name(asked, argument)
        if not _fill_all(entries, structure, name):
            raise mismatch(f"{name} where there is no tensor")
    elif not isinstance(asked, list | tuple | Mapping):
        precision_name(asked, argument)
    elif isinstance(structure, Mapping):
        if not isinstance(asked, Mapping):
            raise mismatch(f"a {type(asked).__name__} for {_describe(structure)}")
        unknown = [key for key in asked if key not in structure]
        if unknown:
            raise mismatch(f"the keys {unknown}")
        for key, value in asked.items():
            _fill(entries, value, structure[key], argument, whole)
    elif isinstance(structure, list | tuple):
        if isinstance(asked, Mapping):
            raise mismatch(f"a dict for {_describe(structure)}")
        if len(asked) != len(structure):
            raise mismatch(f"{len(asked)} entries for {_describe(structure)}")
        for value, part in zip(asked, structure, strict=True):
            _fill(entries, value, part, argument, whole)
    elif isinstance(asked, list | tuple) and len(asked) == 1 and isinstance(whole, int):
        _fill(entries, asked[0], structure, argument, whole)
    else:
        raise mismatch(f"a {type(asked).__name__} where there is one tensor")


def _fill_all(entries: list[str | None], structure: Any, name: str) -> bool:
    """False where there is no tensor in `structure`."""
    if isinstance(structure, Mapping):
        return any([_fill_all(entries, part, name) for part in structure.values()])
    if isinstance(structure, list | tuple):
        return any([_fill_all(entries, part, name) for part in structure])
    if structure is not None:
        entries[structure] = name
    return structure is not None


def _describe(structure: Any) -> str:
    if isinstance(structure, Mapping):
        parts = [f"{key!r}: {_describe(part)}" for key, part in structure.items()]
        return "{" + ", ".join(parts) + "}"
    if isinstance(structure, list | tuple):
        return "[" + ", ".join(_describe(part) for part in structure) + "]"
    return "None" if structure is None else f"tensor {structure}"
