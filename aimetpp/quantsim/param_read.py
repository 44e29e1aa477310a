# SPDX-License-Identifier: BSD-3-Clause
"""Parameters that a call reads as arguments, whole or some rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from aimetpp.nn.computed import weight_of


@dataclass(frozen=True)
class ParamRead:
    """A parameter that a call reads as its markable argument number `slot`.

    Attributes:
        module: dotted name of the module that has the parameter.
        name: the parameter's name there.
        rows: the rows [first, last) that are read; None: all of it.
    """

    slot: int
    module: str
    name: str
    rows: tuple[int, int] | None = None

    @property
    def path(self) -> str:
        """Its name in the state_dict, rows in brackets: "attn.in_proj_weight[0:8]"."""
        path = f"{self.module}.{self.name}" if self.module else self.name
        return path if self.rows is None else f"{path}[{self.rows[0]}:{self.rows[1]}]"

    def value(self, owner: torch.nn.Module) -> torch.Tensor | None:
        """What is read of the parameter."""
        parameter = weight_of(owner, self.name)
        if parameter is None or self.rows is None:
            return parameter
        return parameter[slice(*self.rows)]


def rows_of_base(x: torch.Tensor) -> tuple[int, int] | None:
    """The rows that a tensor is of the one it is a view of; None: some other view."""
    base = x._base
    assert base is not None
    same_rows = tuple(map(int, x.shape[1:])) == tuple(map(int, base.shape[1:]))
    if x.dim() != base.dim() or not same_rows or x.stride() != base.stride():
        return None
    first = (x.storage_offset() - base.storage_offset()) // base.stride(0)
    return first, first + int(x.shape[0])
