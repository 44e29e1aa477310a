# SPDX-License-Identifier: BSD-3-Clause
"""Biases as 32-bit integers, in steps of input scale x weight scale.

Integer hardware adds them to its sums of products, which come in these steps. A
simulation with `int32_bias` computes with the same numbers; another one with the float
bias, at most half a step away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
import torch
from onnx import helper, numpy_helper

from aimetpp.export.encodings import Encoding
from aimetpp.export.graph_editor import GraphEditor, names_read_by
from aimetpp.quantization.integer_bias import (
    INT32_MAX,
    INT32_MIN,
    bias_integers,
    bias_step,
)

# Layers with a bias of their own, at input 2. A MatMul has it in the Add behind it.
_LAYERS = frozenset(("Conv", "ConvTranspose", "Gemm"))


@dataclass
class IntegerBiases:
    """Biases that are integers now.

    Attributes:
        encodings: by the name of the bias; of further ones of it, by that of the
            dequantized tensor.
        sources: the name of the bias, by that of the dequantized tensor.
    """

    encodings: dict[str, Encoding] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


def quantize_biases(
    editor: GraphEditor,
    on_grid: Mapping[str, Encoding],
    weights: Mapping[str, Encoding],
) -> IntegerBiases:
    """Puts integers and a DequantizeLinear in the place of each float bias.

    A bias stays as it is where the input of its layer is not on one integer grid or the
    weight on none, where it would not fit in 32 bits, and where it is no constant.

    Args:
        editor: of the graph, already with QuantizeLinear and DequantizeLinear nodes.
        on_grid: encodings of tensors whose values are on a grid.
        weights: encodings by the name of the dequantized weight.

    Returns:
        What has been made. A bias that several layers read with inputs of different
        scales has an encoding for each.
    """
    rewriter = _Biases(editor, on_grid, weights)
    rewriter.rewrite()
    return rewriter.made


class _Biases:
    def __init__(
        self,
        editor: GraphEditor,
        on_grid: Mapping[str, Encoding],
        weights: Mapping[str, Encoding],
    ) -> None:
        self._editor = editor
        self._on_grid = on_grid
        self._weights = weights
        self._producers = editor.producers()
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in editor.graph.node:
            for name in names_read_by(node):
                self._readers.setdefault(name, []).append(node)
        self._outputs: dict[tuple[str, Encoding], str] = {}
        self.made = IntegerBiases()

    def rewrite(self) -> None:
        nodes: list[onnx.NodeProto] = []
        for node in self._editor.graph.node:
            place = self._place_of_bias(node)
            if place is not None:
                layer, slot = place
                scales = self._scales(layer)
                bias = self._bias(node.input[slot])
                if scales is not None and bias is not None:
                    nodes.extend(self._quantize(node, slot, bias, scales))
            nodes.append(node)
        del self._editor.graph.node[:]
        self._editor.graph.node.extend(nodes)

    def _scales(
        self, layer: onnx.NodeProto
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Of the layer's input and its weight."""
        source = self._on_grid.get(layer.input[0])
        weight = self._weights.get(self._behind_transpose(layer.input[1]))
        if source is None or weight is None or source.is_float or weight.is_float:
            return None
        if weight.blocks is not None or len(source.scale) > 1:
            return None
        attributes = {a.name: helper.get_attribute_value(a) for a in layer.attribute}
        if attributes.get("beta", 1.0) != 1.0 or attributes.get("alpha", 1.0) != 1.0:
            return None
        return torch.tensor(source.scale[0]), torch.tensor(weight.scale)

    def _bias(self, name: str) -> onnx.TensorProto | None:
        """The initializer behind `name`, under that name: exporters store equal biases
        once, with an Identity for each further name.
        """
        stored = name
        while (node := self._producers.get(stored)) and node.op_type == "Identity":
            stored = node.input[0]
        tensor = self._editor.initializers.get(stored)
        if tensor is None or stored == name:
            return tensor
        bias = onnx.TensorProto()
        bias.CopyFrom(tensor)
        bias.name = name
        return bias

    def _behind_transpose(self, name: str) -> str:
        while (node := self._producers.get(name)) and node.op_type == "Transpose":
            name = node.input[0]
        return name

    def _place_of_bias(self, node: onnx.NodeProto) -> tuple[onnx.NodeProto, int] | None:
        """The layer whose bias `node` reads, and at which input."""
        if node.op_type in _LAYERS:
            return (node, 2) if len(node.input) > 2 and node.input[2] else None
        if node.op_type != "Add":
            return None
        for slot, other in ((1, node.input[0]), (0, node.input[1])):
            layer = self._producers.get(other)
            if layer is not None and layer.op_type == "MatMul":
                alone = len(self._readers[other]) == 1
                return (layer, slot) if alone else None
        return None

    def _quantize(
        self,
        node: onnx.NodeProto,
        slot: int,
        bias: onnx.TensorProto,
        scales: tuple[torch.Tensor, torch.Tensor],
    ) -> list[onnx.NodeProto]:
        if len(bias.dims) != 1 or bias.data_type != onnx.TensorProto.FLOAT:
            return []
        values = torch.from_numpy(numpy_helper.to_array(bias).copy())
        step = bias_step(*scales, values.numel())
        if step is None:
            return []
        integers = bias_integers(values, step)
        if integers is None:
            return []
        encoding = Encoding(
            precision="int32",
            symmetric=True,
            scale=tuple(step.tolist()),
            offset=(0,) * step.numel(),
            qmin=INT32_MIN,
            qmax=INT32_MAX,
            channel_axis=0 if step.numel() > 1 else None,
        )
        name = bias.name
        if (name, encoding) in self._outputs:
            node.input[slot] = self._outputs[name, encoding]
            return []
        stored = self._editor.add_initializer(
            f"{name}_quantized", numpy_helper.from_array(integers.int().numpy())
        )
        shaped = step if step.numel() > 1 else step.reshape(())
        scale = self._editor.add_initializer(
            f"{name}_scale", numpy_helper.from_array(shaped.numpy())
        )
        output = self._editor.unique_name(f"{name}_dequantized")
        node.input[slot] = self._outputs[name, encoding] = output
        encodings = self.made.encodings
        encodings[output if name in encodings else name] = encoding
        self.made.sources[output] = name
        made = helper.make_node("DequantizeLinear", [stored, scale], [output], output)
        if encoding.channel_axis is not None:
            made.attribute.append(helper.make_attribute("axis", 0))
        return [made]
