# SPDX-License-Identifier: BSD-3-Clause
"""Definitions that user code of ONNX models names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aimetpp.common.defs import CallbackFunc, QuantizationDataType, QuantScheme

__all__ = ["CallbackFunc", "DataLoader", "QuantScheme", "QuantizationDataType"]


class DataLoader:
    """Batches of a data set; subclasses may make them of it in their own way.

    Args:
        data: what a slice can be taken of, such as an array.
        batch_size: samples in a batch.
        iterations: batches.

    Raises:
        ValueError: `batch_size` or `iterations` is not positive.
    """

    def __init__(self, data: Any, batch_size: int, iterations: int) -> None:
        for name, value in (("batch_size", batch_size), ("iterations", iterations)):
            if value < 1:
                raise ValueError(f"DataLoader: {name} must be positive, got {value}")
        self._data = data
        self.batch_size = batch_size
        self.iterations = iterations

    def __len__(self) -> int:
        return self.iterations

    def __iter__(self) -> Iterator[Any]:
        """Slices of the data, one after the other."""
        for index in range(self.iterations):
            start = index * self.batch_size
            yield self._data[start : start + self.batch_size]

    def metric_identity(self) -> tuple[Any, ...]:
        """What a search compares to see whether the data is that of an earlier run."""
        return type(self).__qualname__, self.batch_size, self.iterations, self._data
