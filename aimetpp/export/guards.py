# SPDX-License-Identifier: BSD-3-Clause
"""Nodes that keep onnxruntime from rewriting what it then cannot run, or computes
otherwise.

onnxruntime 1.31, with its default optimizations, moves QuantizeLinear and
DequantizeLinear through data movement and fuses them with what stands there. With 4-bit
tensors it so makes MaxPool and QLinearConv nodes that it has no kernel for, drops a
ReLU whatever the zero point is, and fails over a Clip; with signed 8-bit tensors in
opset 21 it makes QuantizeLinear nodes of contradicting types. Where a layer's input is
dequantized it rounds the layer's float weight to 8 bits, and its bias to 32 bits in
steps of input scale x weight scale, which the bias may overflow where these are small,
as with 16 bits. Its QLinearSoftmax gives zeros for the largest of each row where no
probability is much above the mean one. With 8-bit floats, and with activations that
have one range per channel, all of this happens to nodes that have no such kernels, and
a ReLU goes although floats have signs: their quantizing nodes are guarded on both sides
(qdq.py), and the integer inputs of layers that have weights of 8-bit floats. A Min or
Max with an end of the tensor's own grid changes no value, and stops it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from aimetpp.export.encodings import Encoding
from aimetpp.export.graph_editor import GraphEditor
from aimetpp.quantization.float import FLOAT8_DTYPES

# Data movement that onnxruntime passes through, by their first input.
_PASSED_THROUGH = frozenset(
    ("MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze", "Flatten")
)
# Layers whose weight and bias onnxruntime rounds; it makes a Gemm of MatMul and Add.
_ROUNDED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
_FLOAT8_TYPES = (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2)
# QLinearSoftmax scales exponentials so that the sum of n of the largest is e^5 below
# float32's largest, and multiplies each by 1 / step of the probabilities, which must so
# be below n e^5. The margin is for its roundings.
_SOFTMAX_HEADROOM = 0.99 * math.exp(5)
_INT32_STEPS = 2.0**31


def grid_end(encoding: Encoding, highest: bool) -> float:
    """The lowest or highest value of an integer grid, over all channels, as it is
    dequantized.
    """
    q = encoding.qmax if highest else encoding.qmin
    offsets = np.array(encoding.offset, np.float32)
    ends = np.array(encoding.scale, np.float32) * (np.float32(q) + offsets)
    return float(ends.max() if highest else ends.min())


def guarded_ends(encoding: Encoding) -> tuple[float, float] | None:
    """Lowest and highest value of a grid whose nodes are guarded wherever they stand;
    None for others.
    """
    if encoding.is_scaled_float:
        largest = torch.finfo(FLOAT8_DTYPES[encoding.precision]).max
        end = float(np.float32(largest) * np.float32(max(encoding.scale)))
        return -end, end
    if encoding.channel_axis is not None:
        return grid_end(encoding, False), grid_end(encoding, True)
    return None


def add_guards(
    editor: GraphEditor,
    on_grid: Mapping[str, Encoding],
    quantized: Mapping[str, Encoding],
    opset: int,
) -> None:
    """Adds the guards that a graph needs.

    Args:
        editor: of the graph, already with QuantizeLinear and DequantizeLinear nodes.
        on_grid: dequantized tensors, and those that data movement makes of them.
        quantized: encodings by the name of the tensor that QuantizeLinear reads.
        opset: of the model.
    """
    producers = editor.producers()
    lengths = {value.name: _last_length(value) for value in editor.graph.value_info}
    nodes: list[onnx.NodeProto] = []
    for node in editor.graph.node:
        source = node.input[0] if node.input else ""
        if node.op_type == "QuantizeLinear":
            encoding = quantized.get(source)
            if encoding is not None and _hides_a_clamp(source, encoding, producers):
                nodes.append(_guard(editor, node, "Max", grid_end(encoding, False)))
        elif source in on_grid and (
            _is_refused(node, on_grid[source], opset)
            or _harms_layer(editor, node, on_grid[source], producers)
            or _overflows(node, on_grid[source], quantized, lengths)
        ):
            nodes.append(_guard(editor, node, "Min", grid_end(on_grid[source], True)))
        nodes.append(node)
    del editor.graph.node[:]
    editor.graph.node.extend(nodes)


def _is_refused(node: onnx.NodeProto, encoding: Encoding, opset: int) -> bool:
    if encoding.is_float:
        return False
    if encoding.bitwidth <= 4:
        return node.op_type in ("MaxPool", "Conv")
    signed_bytes = encoding.bitwidth <= 8 and encoding.qmin < 0
    return signed_bytes and opset >= 21 and node.op_type in _PASSED_THROUGH


def _last_length(value: onnx.ValueInfoProto) -> int:
    """Of the last axis; 0 where it is not known."""
    axes = value.type.tensor_type.shape.dim
    return axes[-1].dim_value if axes else 0


def _overflows(
    node: onnx.NodeProto,
    scores: Encoding,
    quantized: Mapping[str, Encoding],
    lengths: Mapping[str, int],
) -> bool:
    """True for a Softmax of 8-bit scores whose QLinearSoftmax would overflow."""
    probabilities = quantized.get(node.output[0])
    if node.op_type != "Softmax" or probabilities is None:
        return False
    if scores.is_float or probabilities.is_float or scores.bitwidth > 8:
        return False
    last = all(a.name != "axis" or a.i == -1 for a in node.attribute)
    # An unknown length counts as the shortest, which overflows soonest.
    length = max(2, lengths.get(node.input[0], 0) if last else 0)
    return 1 / probabilities.scale[0] >= _SOFTMAX_HEADROOM * length


def _harms_layer(
    editor: GraphEditor,
    node: onnx.NodeProto,
    encoding: Encoding,
    producers: Mapping[str, onnx.NodeProto],
) -> bool:
    """True for a layer with a float weight, one of 8-bit floats, or a bias that would
    overflow.
    """
    if encoding.is_float or node.op_type not in _ROUNDED:
        return False
    bias = _bias_of(editor, node)
    weight = producers.get(node.input[1])
    while weight is not None and weight.op_type == "Transpose":
        weight = producers.get(weight.input[0])
    is_quantized = weight is not None and weight.op_type == "DequantizeLinear"
    if weight is not None and is_quantized:
        stored = editor.initializers.get(weight.input[0])
        if stored is not None and stored.data_type in _FLOAT8_TYPES:
            return True
    if bias is None and node.op_type == "MatMul":
        return False
    if weight is None or not is_quantized:
        return True
    weight_scale = editor.initializers.get(weight.input[1])
    if bias is None or weight_scale is None:
        return False
    step = numpy_helper.to_array(weight_scale).astype(np.float64) * encoding.scale[0]
    values = np.abs(numpy_helper.to_array(bias))
    if step.size not in (1, values.size):  # grouped ConvTranspose, left alone
        return False
    return bool((values >= _INT32_STEPS * step).any())


def _bias_of(editor: GraphEditor, node: onnx.NodeProto) -> onnx.TensorProto | None:
    if node.op_type != "MatMul":
        names = list(node.input[2:3])
    else:
        adds = (n for n in editor.graph.node if n.op_type == "Add")
        names = [x for n in adds if node.output[0] in n.input for x in n.input]
    return next((t for x in names if (t := editor.initializers.get(x))), None)


def _hides_a_clamp(
    tensor: str, encoding: Encoding, producers: Mapping[str, onnx.NodeProto]
) -> bool:
    """True where a 4-bit tensor comes from a MaxPool, a Clip, or a ReLU that cuts the
    grid.
    """
    if encoding.is_float or encoding.bitwidth > 4:
        return False
    while tensor in producers:
        node = producers[tensor]
        if node.op_type in ("MaxPool", "Clip"):
            return True
        if node.op_type == "Relu":
            return encoding.qmin + encoding.offset[0] < 0
        if node.op_type not in _PASSED_THROUGH:
            return False
        tensor = node.input[0]
    return False


def _guard(
    editor: GraphEditor, reader: onnx.NodeProto, op: str, bound: float
) -> onnx.NodeProto:
    """A node between `reader` and its first input; `reader` is rewired."""
    source = reader.input[0]
    reader.input[0] = editor.unique_name(f"{source}_guarded")
    end = editor.add_scalar(f"{source}_guard", bound)
    name = f"{reader.name}_guard"
    return helper.make_node(op, [source, end], [reader.input[0]], name)
