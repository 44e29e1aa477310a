# SPDX-License-Identifier: BSD-3-Clause
"""Block-wise ranges: a tensor as a list of equal blocks, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Blocks:
    """How a tensor is cut into equal blocks, one range for each.

    Attributes:
        counts: number of blocks along each axis of the tensor.
        size: elements of a block along each axis; -1: whatever the tensor's size
            makes of it.
    """

    counts: tuple[int, ...]
    size: tuple[int, ...]

    @classmethod
    def of(cls, counts: Sequence[int], size: Sequence[int]) -> Blocks:
        """Checks that the two go together.

        Raises:
            ValueError: not one size, 1 or more or -1, for each axis of `counts`.
        """
        sizes = tuple(size)
        valid = all(isinstance(n, int) and (n == -1 or n >= 1) for n in sizes)
        if not valid or len(sizes) != len(counts):
            raise ValueError(
                "block_size must hold, for each of the "
                f"{len(counts)} dimensions of shape {tuple(counts)}, the elements of a "
                f"block (1 or more, or -1 for what remains), got {sizes}"
            )
        return cls(tuple(counts), sizes)

    def sizes_in(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Elements of a block along each axis of a tensor of `shape`.

        Raises:
            ValueError: the tensor cannot be cut so.
        """
        fits = len(shape) == len(self.counts) and all(
            total == count * size if size != -1 else total % count == 0
            for total, count, size in zip(shape, self.counts, self.size, strict=True)
        )
        if not fits:
            raise ValueError(
                f"a tensor of shape {tuple(shape)} cannot be cut into "
                f"{self.counts} blocks of block_size {self.size}"
            )
        return tuple(
            total // count for total, count in zip(shape, self.counts, strict=True)
        )

    def axis_and_size(self) -> tuple[int, int]:
        """The one axis that is cut into blocks, and their size along it, as files
        and ONNX say it.

        Raises:
            ValueError: blocks cut several axes, or their size is not known.
        """
        cut = [
            axis
            for axis, (count, size) in enumerate(
                zip(self.counts, self.size, strict=True)
            )
            if size > 1 or (size == -1 and count > 1)
        ]
        partial = [axis for axis in cut if self.counts[axis] > 1] or cut[-1:]
        if len(partial) != 1 or self.size[partial[0]] == -1:
            raise ValueError(
                "blocks must have a known size and cut one axis, got "
                f"{self.counts} blocks of block_size {self.size}"
            )
        return partial[0], self.size[partial[0]]

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """Returns [blocks, elements of a block], blocks in the order of `counts`.

        A view wherever blocks are contiguous, as along the last axes of a weight.

        Raises:
            ValueError: `x` cannot be cut so.
        """
        sizes = self.sizes_in(x.shape)
        axes = range(len(sizes))
        pairs = [n for axis in axes for n in (self.counts[axis], sizes[axis])]
        order = [2 * axis for axis in axes] + [2 * axis + 1 for axis in axes]
        blocks = x.reshape(pairs).permute(order)
        return blocks.reshape(math.prod(self.counts), math.prod(sizes))

    def join(self, blocks: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Undoes `split` of a tensor of `shape`."""
        sizes = self.sizes_in(shape)
        axes = range(len(sizes))
        order = [n for axis in axes for n in (axis, len(sizes) + axis)]
        apart = blocks.reshape(*self.counts, *sizes)
        return apart.permute(order).reshape(tuple(shape))
