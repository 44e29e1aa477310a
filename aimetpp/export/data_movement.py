# SPDX-License-Identifier: BSD-3-Clause
"""ONNX nodes whose output lies on their input's grid, or on a multiple of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from aimetpp.export.encodings import Encoding

# Their outputs hold values of their first input, and zeros, only, so its encoding holds
# there.
_DATA_MOVEMENT = frozenset(
    "Compress DepthToSpace Dropout Expand Flatten Gather GatherElements GatherND "
    "Identity MaxPool MaxRoiPool ReduceMax ReduceMin Reshape Slice SpaceToDepth Split "
    "Squeeze Tile TopK Transpose Trilu Unsqueeze".split()
)
# Of these the axis of a per-channel encoding stays an axis of the same channels.
_KEEPS_CHANNELS = frozenset({"Dropout", "Identity", "MaxPool"})
# Of these only the first output does; the others are indices or masks.
_FIRST_OUTPUT_ONLY = frozenset({"Dropout", "MaxPool", "TopK"})


def spread_encodings(
    graph: onnx.GraphProto, on_grid: Mapping[str, Encoding]
) -> dict[str, Encoding]:
    """The encodings that data movement and constant factors carry on; one per channel
    only where its axis stays.

    Args:
        graph: nodes in topological order.
        on_grid: encodings of tensors whose values are on a grid.

    Returns:
        Encodings of the outputs of such nodes, in graph order.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    moved: dict[str, Encoding] = {}
    for node in graph.node:
        if node.op_type == "Constant":
            values = [a.t for a in node.attribute if a.name == "value"]
            constants.update(dict.fromkeys(node.output, *values) if values else {})
        source = node.input[0] if node.input else ""
        encoding = moved.get(source, on_grid.get(source))
        if encoding is None:
            continue
        factor = _constant_factor(node, constants)
        if factor is not None and not encoding.is_float:
            moved[node.output[0]] = _multiplied(encoding, factor)
        elif encoding.channel_axis is not None and node.op_type not in _KEEPS_CHANNELS:
            continue
        elif node.op_type == "Concat":
            # Of parts of one tensor, as torch.roll is exported, or of equal grids.
            if all(moved.get(n, on_grid.get(n)) == encoding for n in node.input):
                moved[node.output[0]] = encoding
        elif node.op_type in _DATA_MOVEMENT or _moves(node):
            first_only = node.op_type in _FIRST_OUTPUT_ONLY
            for name in node.output[:1] if first_only else node.output:
                moved[name] = encoding
    return moved


def _constant_factor(
    node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> float | None:
    """What a Mul or Div multiplies its first input by; None where that may vary."""
    if node.op_type not in ("Mul", "Div") or node.input[1] not in constants:
        return None
    tensor = constants[node.input[1]]
    if math.prod(tensor.dims) != 1:
        return None
    number = float(numpy_helper.to_array(tensor).reshape(()))
    if not 0.0 < number < math.inf:
        return None
    return number if node.op_type == "Mul" else 1.0 / number


def _multiplied(encoding: Encoding, factor: float) -> Encoding:
    scale = tuple(float(np.float32(s * factor)) for s in encoding.scale)
    return dataclasses.replace(encoding, scale=scale, ends=())


def _moves(node: onnx.NodeProto) -> bool:
    """Whether a node whose attributes and inputs decide does no more than that."""
    if node.op_type == "Pad":  # without a value, pads with zero
        return not (len(node.input) > 2 and node.input[2])
    if node.op_type != "Resize":
        return False
    attributes = {a.name: a.s.decode() for a in node.attribute}
    outside = attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    return attributes.get("mode", "nearest") == "nearest" and not outside
