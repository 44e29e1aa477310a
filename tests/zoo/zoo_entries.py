# SPDX-License-Identifier: BSD-3-Clause
"""An entry of the zoo: how its model and its example input are made."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Example = tuple[nn.Module, Any]


class Entries(dict[str, Callable[[], Example]]):
    """Functions that make (model, example input), by "package/model"."""

    def add(
        self, name: str, build: Callable[[], nn.Module], example: Callable[[], Any]
    ) -> None:
        self[name] = lambda: (build(), example())


def images(size: int, batch: int = 2) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(batch, 3, size, size)


def tokens(**lengths: int) -> Callable[[], dict[str, torch.Tensor]]:
    return lambda: {k: torch.randint(3, 100, (2, n)) for k, n in lengths.items()}
