# SPDX-License-Identifier: BSD-3-Clause
"""The parameter that a quantizer was calibrated on, to be looked at again."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch

from aimetpp import _C


class ParameterReference:
    """A parameter, or what is computed from some, as it stands in its module.

    The module is not kept alive. Copied or pickled with its module, the reference is
    to the copy.

    Args:
        owner: the module that has it.
        value_of: from the module to the tensor, None where it has none.
    """

    def __init__(
        self,
        owner: torch.nn.Module | None,
        value_of: Callable[[torch.nn.Module], torch.Tensor | None],
    ) -> None:
        self._owner = (lambda: None) if owner is None else weakref.ref(owner)
        self._value_of = value_of

    def value(self) -> torch.Tensor | None:
        """The tensor; None where the module is gone."""
        owner = self._owner()
        return None if owner is None else self._value_of(owner)

    @staticmethod
    def content(value: torch.Tensor | None) -> int:
        """A hash of all its elements; 0 for None."""
        return 0 if value is None else _C.content_hash(value)

    def __reduce__(self) -> Any:
        return ParameterReference, (self._owner(), self._value_of)
