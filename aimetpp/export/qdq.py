# SPDX-License-Identifier: BSD-3-Clause
"""Site markers in an ONNX graph -> QuantizeLinear and DequantizeLinear nodes.

The exporter leaves one marker node where each quantizer stands. Each becomes, with
the quantizer's encoding:
  - an activation on an integer grid: [Clip ->] QuantizeLinear -> DequantizeLinear,
    in the narrowest of ONNX's 4, 8 and 16-bit types that holds the grid; Clip (Max
    and Min) only where the grid is narrower than the type (5 bits in int8);
  - a parameter: its integers as an initializer -> DequantizeLinear;
  - fp8_e4m3, fp8_e5m2: the same in ONNX's types of 8-bit floats, with a scale;
  - fp16, bf16: Cast -> Cast.
Biases, which have no quantizer, become 32-bit integers (biases.py).
QuantizeLinear computes what the simulation does: round half to even, then saturate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from aimetpp.export.biases import quantize_biases
from aimetpp.export.data_movement import spread_encodings
from aimetpp.export.encodings import Encoding
from aimetpp.export.graph_editor import GraphEditor, rename_tensors
from aimetpp.export.guards import add_guards, grid_end, guarded_ends
from aimetpp.export.integer_types import (
    WIDE_TYPES_OPSET,
    grid_type,
    is_narrower_than_type,
)
from aimetpp.export.param_integers import (
    float8_bytes,
    per_onnx_block,
    quantize_array,
)
from aimetpp.quantization.blocks import Blocks

MARKER_DOMAIN = "aimetpp.marker"
# The exporter names a node's output after its type, and the marker's output is
# what the DequantizeLinear in its place will yield.
MARKER_OP = "DequantizeLinear"

_IR_VERSION_OF_WIDE_TYPES = 10

_FLOAT_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_MARKER_TYPES = {
    "Float": TensorProto.FLOAT,
    "Half": TensorProto.FLOAT16,
    "BFloat16": TensorProto.BFLOAT16,
    "Double": TensorProto.DOUBLE,
}


@dataclass
class QdqResult:
    """What stands where, by tensor name.

    `activations` and `params` list every tensor that has an encoding, in graph
    order, outputs of data-movement nodes last.
    """

    activations: dict[str, Encoding] = field(default_factory=dict)
    params: dict[str, Encoding] = field(default_factory=dict)
    biases: dict[str, Encoding] = field(default_factory=dict)


def insert_qdq(
    model: onnx.ModelProto,
    encodings: Mapping[int, Encoding],
    site_names: Mapping[int, str],
    param_sites: Iterable[int],
    int32_bias: bool = True,
) -> QdqResult:
    """Replaces every marker of `model`, in place.

    Args:
        model: as exported, at an opset that `required_opset` allows.
        encodings: by site id, which is the marker's `id`.
        site_names: by site id, for errors and for parameters computed in the graph.
        param_sites: ids of the sites that are parameters.
        int32_bias: store biases as 32-bit integers where that is possible.

    Raises:
        ValueError: a grid wider than 16 bits, a marker without an encoding.
    """
    rewriter = _Rewriter(model, encodings, site_names, set(param_sites))
    rewriter.rewrite(int32_bias)
    return rewriter.result


@dataclass(frozen=True)
class _Marker:
    site: int
    elem_type: int
    source: str
    output: str
    name: str


class _Rewriter:
    def __init__(
        self,
        model: onnx.ModelProto,
        encodings: Mapping[int, Encoding],
        site_names: Mapping[int, str],
        param_sites: set[int],
    ) -> None:
        self._model = model
        self._graph = model.graph
        self._encodings = encodings
        self._site_names = site_names
        self._param_sites = param_sites
        self._editor = GraphEditor(model.graph)
        self._producers = self._editor.producers()
        self._renamed: dict[str, str] = {}
        self._made: dict[tuple[str, int, Encoding], str] = {}
        # Dequantized activation tensors, and tensors that QuantizeLinear reads.
        self._on_grid: dict[str, Encoding] = {}
        self._elem_types: dict[str, int] = {}  # of those that a marker stood at
        self._quantized: dict[str, Encoding] = {}
        self._weights: dict[str, Encoding] = {}  # by the dequantized tensor
        self._constants: dict[str, str] = {}  # by the same: the float tensor
        self.result = QdqResult()

    def rewrite(self, int32_bias: bool) -> None:
        nodes: list[onnx.NodeProto] = []
        for node in self._graph.node:
            rename_tensors(node, self._renamed)
            if node.domain == MARKER_DOMAIN:
                nodes.extend(self._replace(node))
            else:
                nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        moved = spread_encodings(self._graph, self._on_grid)
        for name, encoding in moved.items():
            self._on_grid[name] = encoding
            self.result.activations.setdefault(name, encoding)
        kept = [o for o in self._model.opset_import if o.domain != MARKER_DOMAIN]
        del self._model.opset_import[:]
        self._model.opset_import.extend(kept)
        opset = next(o.version for o in kept if not o.domain)
        if int32_bias:
            biases = quantize_biases(self._editor, self._on_grid, self._weights)
            self.result.biases = biases.encodings
            self._constants.update(biases.sources)
        add_guards(self._editor, self._float_grids(), self._quantized, opset)
        self._editor.drop_unused()
        self._keep_names_of_constants()
        if opset >= WIDE_TYPES_OPSET:
            self._model.ir_version = max(
                self._model.ir_version, _IR_VERSION_OF_WIDE_TYPES
            )

    def _float_grids(self) -> dict[str, Encoding]:
        """Those of `_on_grid` of type float32: a Cast stands behind every other
        DequantizeLinear, with which onnxruntime fuses nothing.
        """
        made = {
            name: encoding
            for name, encoding in self._on_grid.items()
            if self._elem_types.get(name) == TensorProto.FLOAT
        }
        return {**made, **spread_encodings(self._graph, made)}

    def _keep_names_of_constants(self) -> None:
        """Gives a dequantized constant the name of the float one where that is gone."""
        taken = {tensor.name for tensor in self._graph.initializer}
        taken |= set(self._editor.producers())
        names: dict[str, str] = {}
        for output, source in self._constants.items():
            if source not in taken and output not in self._editor.outputs:
                taken.add(source)
                names[output] = source
        for node in self._graph.node:
            rename_tensors(node, names, outputs=True)

    # -- one marker ---------------------------------------------------------

    def _replace(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        marker = _Marker(
            site=attributes["id"],
            elem_type=_MARKER_TYPES[attributes["dtype"].decode()],
            source=node.input[0],
            output=node.output[0],
            name=node.name,
        )
        if marker.site not in self._encodings:
            raise ValueError(f"ONNX export: site {marker.site} has no encoding")
        encoding = self._encodings[marker.site]
        # Two readers of one tensor share one pair of nodes.
        key = (marker.source, marker.elem_type, encoding)
        if key in self._made and marker.output not in self._editor.outputs:
            self._renamed[marker.output] = self._made[key]
            return []
        self._made.setdefault(key, marker.output)
        initializer = self._initializer_of(marker.source)
        if marker.site in self._param_sites:
            self._record_param(marker, encoding, initializer is not None)
            if initializer is not None:
                return self._param_nodes(marker, encoding, initializer)
        else:
            self._record_activation(marker, encoding)
        return self._activation_nodes(marker, encoding)

    def _record_param(
        self, marker: _Marker, encoding: Encoding, is_initializer: bool
    ) -> None:
        site_name = self._site_names[marker.site]
        self.result.params[marker.source if is_initializer else site_name] = encoding

    def _record_activation(self, marker: _Marker, encoding: Encoding) -> None:
        self._on_grid[marker.output] = encoding
        self._elem_types[marker.output] = marker.elem_type
        # A model output keeps its name, which then is the quantized tensor's.
        name = marker.output if marker.output in self._editor.outputs else marker.source
        if name in self.result.activations:  # read by others with another encoding
            name = marker.output
        self.result.activations[name] = encoding

    def _initializer_of(self, name: str) -> onnx.TensorProto | None:
        """The initializer behind `name`, through Identity nodes."""
        while name in self._producers and self._producers[name].op_type == "Identity":
            name = self._producers[name].input[0]
        return self._editor.initializers.get(name)

    def _activation_nodes(
        self, marker: _Marker, encoding: Encoding
    ) -> list[onnx.NodeProto]:
        chain = _Chain(self._editor, marker)
        if encoding.precision in _FLOAT_TYPES:
            chain.cast(_FLOAT_TYPES[encoding.precision], "narrowed")
            chain.cast(marker.elem_type, "widened")
            return chain.finish()
        if encoding.blocks is not None:
            raise ValueError(
                f"ONNX export: {self._site_names[marker.site]!r} is computed in the "
                "graph, so that its block-wise grid cannot be expressed; quantize it "
                "per channel or per tensor"
            )
        if marker.elem_type != TensorProto.FLOAT:
            chain.cast(TensorProto.FLOAT, "float")
        if not encoding.is_float and is_narrower_than_type(
            encoding, self._site_names[marker.site]
        ):
            self._clip(chain, marker, encoding)
        scale, zero_point, axis = self._grid_initializers(marker, encoding)
        ends = guarded_ends(encoding)
        if ends is not None:
            high = self._editor.add_scalar(f"{marker.source}_guard", ends[1])
            chain.add("Min", [high], "clipped")
        self._quantized[chain.current] = encoding
        chain.add("QuantizeLinear", [scale, zero_point], "quantized", **axis)
        chain.add("DequantizeLinear", [scale, zero_point], "dequantized", **axis)
        if ends is not None:
            low = self._editor.add_scalar(f"{marker.source}_guard", ends[0])
            chain.add("Max", [low], "guarded")
        if marker.elem_type != TensorProto.FLOAT:
            chain.cast(marker.elem_type, "cast")
        return chain.finish()

    def _clip(self, chain: _Chain, marker: _Marker, encoding: Encoding) -> None:
        if encoding.channel_axis is not None:
            raise ValueError(
                f"ONNX export: {self._site_names[marker.site]!r} is computed in the "
                f"graph, so that its per-channel {encoding.precision} grid cannot be "
                "expressed; set it to int4, int8, int16, fp16, bf16 or fp32"
            )
        low = self._editor.add_scalar(f"{marker.source}_min", grid_end(encoding, False))
        high = self._editor.add_scalar(f"{marker.source}_max", grid_end(encoding, True))
        if encoding.bitwidth > 4:
            chain.add("Clip", [low, high], "clipped")
            return
        # onnxruntime's fusion of Clip and QuantizeLinear refuses 4-bit types.
        chain.add("Max", [low], "clipped_below")
        chain.add("Min", [high], "clipped")

    def _param_nodes(
        self, marker: _Marker, encoding: Encoding, initializer: onnx.TensorProto
    ) -> list[onnx.NodeProto]:
        values = np.asarray(numpy_helper.to_array(initializer))
        self._constants[marker.output] = marker.source
        if encoding.precision in _FLOAT_TYPES:
            dtype = helper.tensor_dtype_to_np_dtype(_FLOAT_TYPES[encoding.precision])
            with np.errstate(over="ignore"):
                narrowed = numpy_helper.from_array(values.astype(dtype))
            stored = self._editor.add_initializer(f"{marker.source}_narrowed", narrowed)
            chain = _Chain(self._editor, marker, start=stored)
            chain.cast(marker.elem_type, "widened")
            return chain.finish()
        self._weights[marker.output] = encoding
        tensor = self._stored(values, encoding, marker)
        stored = self._editor.add_initializer(f"{marker.source}_quantized", tensor)
        scale, zero_point, axis = self._grid_initializers(
            marker, encoding, values.shape
        )
        chain = _Chain(self._editor, marker, start=stored)
        chain.add("DequantizeLinear", [scale, zero_point], "dequantized", **axis)
        if marker.elem_type != TensorProto.FLOAT:
            chain.cast(marker.elem_type, "cast")
        return chain.finish()

    def _stored(
        self, values: np.ndarray, encoding: Encoding, marker: _Marker
    ) -> onnx.TensorProto:
        """A parameter as the numbers of its grid."""
        elem_type = grid_type(encoding, self._site_names[marker.site])
        if encoding.is_scaled_float:
            numbers = float8_bytes(values, encoding)
            return helper.make_tensor("", elem_type, values.shape, numbers, raw=True)
        integers = quantize_array(values, encoding)
        stored_type = helper.tensor_dtype_to_np_dtype(elem_type)
        return numpy_helper.from_array(integers.astype(stored_type))

    def _grid_initializers(
        self, marker: _Marker, encoding: Encoding, shape: Sequence[int] = ()
    ) -> tuple[str, str, dict[str, int]]:
        """Names of the scale and the zero point, and the attributes that say how they
        extend over the tensor; its `shape` is of use for blocks only.
        """
        elem_type = grid_type(encoding, self._site_names[marker.site])
        scales, zeros = np.array(encoding.scale), np.array(encoding.zero_point)
        axis: dict[str, int] = {}
        if encoding.blocks is not None:
            axis = self._block_attributes(marker, encoding.blocks)
            scales = per_onnx_block(scales, encoding.blocks, axis["axis"], shape)
            zeros = per_onnx_block(zeros, encoding.blocks, axis["axis"], shape)
        elif encoding.channel_axis is not None:
            axis = {"axis": encoding.channel_axis}
        else:
            scales, zeros = scales.reshape(()), zeros.reshape(())
        scale = helper.make_tensor("", TensorProto.FLOAT, scales.shape, scales.ravel())
        if encoding.is_scaled_float:
            zero = helper.make_tensor(
                "", elem_type, zeros.shape, bytes(zeros.size), raw=True
            )
        else:
            zero = helper.make_tensor("", elem_type, zeros.shape, zeros.ravel())
        return (
            self._editor.add_initializer(f"{marker.source}_scale", scale),
            self._editor.add_initializer(f"{marker.source}_zero_point", zero),
            axis,
        )

    def _block_attributes(self, marker: _Marker, blocks: Blocks) -> dict[str, int]:
        try:
            axis, size = blocks.axis_and_size()
        except ValueError as error:
            name = self._site_names[marker.site]
            raise ValueError(f"ONNX export: {name!r}: {error}") from error
        return {"axis": axis, "block_size": size}


class _Chain:
    """Nodes one after the other, from a marker's source to its output."""

    def __init__(
        self, editor: GraphEditor, marker: _Marker, start: str | None = None
    ) -> None:
        self._editor = editor
        self._marker = marker
        self.current = marker.source if start is None else start
        self._nodes: list[onnx.NodeProto] = []

    def add(self, op: str, inputs: list[str], suffix: str, **attributes: Any) -> None:
        output = self._editor.unique_name(f"{self._marker.source}_{suffix}")
        name = f"{self._marker.name}_{suffix}"
        self._nodes.append(
            helper.make_node(op, [self.current, *inputs], [output], name, **attributes)
        )
        self.current = output

    def cast(self, elem_type: int, suffix: str) -> None:
        self.add("Cast", [], suffix, to=elem_type)

    def finish(self) -> list[onnx.NodeProto]:
        self._nodes[-1].output[0] = self._marker.output
        return self._nodes
