# SPDX-License-Identifier: BSD-3-Clause
"""Parameters as the numbers of their grids, and their grids as ONNX lays them out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from aimetpp.export.encodings import Encoding
from aimetpp.quantization.blocks import Blocks
from aimetpp.quantization.float import FLOAT8_DTYPES


def per_onnx_block(
    values: np.ndarray, blocks: Blocks, axis: int, shape: Sequence[int]
) -> np.ndarray:
    """One number for each block along `axis`, and for each index along the others."""
    array = values.reshape(blocks.counts)
    for other, total in enumerate(shape):
        if other != axis:
            array = array.repeat(total // array.shape[other], axis=other)
    return array


def float8_bytes(values: np.ndarray, encoding: Encoding) -> bytes:
    """A parameter's numbers in an 8-bit float format, in row-major order."""
    dtype = FLOAT8_DTYPES[encoding.precision]
    scale = torch.tensor(encoding.scale)
    if encoding.channel_axis is not None:
        shape = [1] * values.ndim
        shape[encoding.channel_axis] = -1
        scale = scale.reshape(shape)
    ratio = torch.from_numpy(np.array(values.astype(np.float32))) / scale
    largest = torch.finfo(dtype).max
    numbers = ratio.clamp(-largest, largest).to(dtype).contiguous()
    return numbers.view(torch.uint8).numpy().tobytes()


def quantize_array(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    """The grid's integers of a parameter, by the op that quantizes it in the
    simulation. int64, of its shape.

    Args:
        values: the parameter, in a floating type.
        encoding: of the quantizer that it has.
    """
    # Half-precision types do not hold integers of 16 bits.
    wide = values if values.dtype == np.float64 else values.astype(np.float32)
    tensor = torch.from_numpy(np.array(wide))
    blocks = encoding.blocks
    axis = encoding.channel_axis
    if blocks is not None:
        tensor, axis = blocks.split(tensor), 0
    low, high = (torch.tensor(end) for end in encoding.ends)
    grid = torch.tensor([encoding.qmin, encoding.qmax])
    is_signed = encoding.qmin < 0
    integers = torch.ops.aimetpp.quantize(tensor, low, high, grid, is_signed, axis)
    if blocks is not None:
        integers = blocks.join(integers, values.shape)
    return integers.numpy().astype(np.int64)
