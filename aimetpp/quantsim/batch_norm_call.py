# SPDX-License-Identifier: BSD-3-Clause
"""What calls of `torch.nn.functional.batch_norm` read."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class FunctionalBatchNorm:
    """What one functional batch norm read; mean and var are None where it normalizes
    with the statistics of its own input.
    """

    mean: torch.Tensor | None
    var: torch.Tensor | None
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    eps: float

    @classmethod
    def of_call(cls, args: Any, kwargs: Any) -> FunctionalBatchNorm:
        """The arguments of `torch.nn.functional.batch_norm`."""
        bound = inspect.signature(torch.nn.functional.batch_norm).bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        kept = not given["training"]
        return cls(
            given["running_mean"] if kept else None,
            given["running_var"] if kept else None,
            given["weight"],
            given["bias"],
            given["eps"],
        )
