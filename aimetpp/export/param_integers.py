# SPDX-License-Identifier: BSD-3-Clause
"""Parameters as the integers of their grids, and their grids as ONNX lays them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from aimetpp.export.encodings import Encoding
from aimetpp.quantization.blocks import Blocks


def per_onnx_block(
    values: np.ndarray, blocks: Blocks, axis: int, shape: Sequence[int]
) -> np.ndarray:
    """One number for each block along `axis`, and for each index along the others."""
    array = values.reshape(blocks.counts)
    for other, total in enumerate(shape):
        if other != axis:
            array = array.repeat(total // array.shape[other], axis=other)
    return array


def quantize_array(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    """The grid's integers of a parameter, in float32 arithmetic as the simulation."""
    if encoding.blocks is not None:
        return _quantize_blocks(values, encoding, encoding.blocks)
    shape = [1] * values.ndim
    if encoding.channel_axis is not None:
        shape[encoding.channel_axis] = -1
    scale = np.asarray(encoding.scale, dtype=np.float32).reshape(shape)
    offset = np.asarray(encoding.offset, dtype=np.float32).reshape(shape)
    steps = np.rint(values.astype(np.float32) / scale) - offset
    integers = np.clip(steps, encoding.qmin, encoding.qmax).astype(np.int64)
    return integers.reshape(values.shape)


def _quantize_blocks(
    values: np.ndarray, encoding: Encoding, blocks: Blocks
) -> np.ndarray:
    per_block = replace(encoding, blocks=None, channel_axis=0)
    split = blocks.split(torch.from_numpy(np.array(values))).numpy()
    integers = torch.from_numpy(quantize_array(split, per_block))
    return blocks.join(integers, values.shape).numpy()
