# SPDX-License-Identifier: BSD-3-Clause
"""ONNX nodes that move or pick values, and so keep their input's encoding."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from aimetpp.export.encodings import Encoding

# Their outputs hold values of their first input only, so its encoding holds there.
_DATA_MOVEMENT = frozenset(
    "Compress DepthToSpace Dropout Expand Flatten Gather GatherElements GatherND "
    "Identity MaxPool MaxRoiPool ReduceMax ReduceMin Reshape Slice SpaceToDepth Split "
    "Squeeze Tile TopK Transpose Unsqueeze".split()
)
# Of these only the first output does; the others are indices or masks.
_FIRST_OUTPUT_ONLY = frozenset({"Dropout", "MaxPool", "TopK"})


def spread_encodings(
    graph: onnx.GraphProto, on_grid: Mapping[str, Encoding]
) -> dict[str, Encoding]:
    """The encodings that data movement carries on.

    Args:
        graph: nodes in topological order.
        on_grid: encodings of tensors whose values are on a grid.

    Returns:
        Encodings of the outputs of data-movement nodes, in graph order.
    """
    moved: dict[str, Encoding] = {}
    for node in graph.node:
        if node.op_type not in _DATA_MOVEMENT and not _pads_with_zero(node):
            continue
        encoding = moved.get(node.input[0], on_grid.get(node.input[0]))
        if encoding is None:
            continue
        first_only = node.op_type in _FIRST_OUTPUT_ONLY
        for name in node.output[:1] if first_only else node.output:
            moved[name] = encoding
    return moved


def _pads_with_zero(node: onnx.NodeProto) -> bool:
    """A Pad without a value pads with zero, which is on every grid."""
    return node.op_type == "Pad" and not (len(node.input) > 2 and node.input[2])
