# SPDX-License-Identifier: BSD-3-Clause
"""The ONNX graph of a simulation: the model's own, with quantizers in it.

What a quantizer does is fed at every run, so that a change of precision or range makes
no new session. A quantized weight is an input of the graph in the place of the weight.
An activation's quantizer is an If for each way to quantize that is in use:

    integers: Mul(Clip(Round(Div(x, scale)), low, high), scale)
    wide:     the same in double, for grids of more than 21 bits
    fp16, bf16: Cast there and back

or, where none of its flags is set, the tensor itself. Here low and high are the
integers at the ends of the grid plus its offset; Round is half to even. These are the
numbers of aimetpp's own kernels (csrc/core/quant_math.h): the clamped sum of a rounded
quotient and an integer offset is exact in the type it is computed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from aimetpp import _C
from aimetpp.export.graph_editor import rename_tensors
from aimetpp.onnx.reading import Reading, captured

if TYPE_CHECKING:
    from aimetpp.onnx.biases import BiasSpot

INTEGER, WIDE = "integer", "wide"
# In the order in which a quantizer's flags are asked.
MODES = (INTEGER, WIDE, "fp16", "bf16")
_FLOAT_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_PREFIX = "aimetpp/"
# (what, quantizer, type) -> the name of the graph input that is fed
_Feed = Callable[[str, int, type[np.generic]], str]


@dataclass(frozen=True)
class Spot:
    """A tensor that one quantizer quantizes.

    Attributes:
        quantizer: index in the placement.
        tensor: the tensor's name in the model.
        readers: (node, input) pairs that read the quantized tensor; empty where it
            takes the tensor's place for all.
    """

    quantizer: int
    tensor: str
    readers: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Spots:
    """Where the quantizers of a placement stand."""

    activations: list[Spot]
    params: list[Spot]


def find_spots(
    model: onnx.ModelProto, reading: Reading, placement: _C.Placement
) -> Spots:
    """Where the quantizers stand in the model's graph."""
    sites = reading.graph.sites
    activations: list[Spot] = []
    params: list[Spot] = []
    for index, spec in enumerate(placement.quantizers):
        readers: dict[str, list[tuple[int, int]]] = {}
        for site in spec.sites:
            node, slot = reading.places[site]
            if sites[site].kind == "output":
                tensor = model.graph.node[node].output[slot]
                activations.append(Spot(index, tensor))
            else:
                tensor = model.graph.node[node].input[slot]
                readers.setdefault(tensor, []).append((node, slot))
        spots = params if spec.kind == "param" else activations
        spots += [Spot(index, name, tuple(places)) for name, places in readers.items()]
    return Spots(activations, params)


def feed_name(what: str, quantizer: int, tensor: str = "") -> str:
    """The name of a graph input that is fed for a quantizer."""
    return f"{_PREFIX}{what}/{quantizer}" + (f"/{tensor}" if tensor else "")


def grid_names(mode: str) -> tuple[str, str, str]:
    """What the numbers of an integer grid are called among the feeds."""
    return f"{mode}_scale", f"{mode}_low", f"{mode}_high"


def with_fed_params(model: onnx.ModelProto, reading: Reading, spots: Spots) -> _Editor:
    """The model with inputs in the place of the weights that are quantized."""
    editor = _Editor(model)
    for spot in spots.params:
        value = reading.constants[spot.tensor]
        name = feed_name("param", spot.quantizer, spot.tensor)
        editor.add_input(name, value.dtype, value.shape)
        editor.redirect(spot.readers, name)
    return editor


def observing_graph(
    model: onnx.ModelProto, reading: Reading, spots: Spots
) -> onnx.ModelProto:
    """The model with fed weights and, as further outputs, every tensor that an
    activation's quantizer quantizes.
    """
    result = with_fed_params(model, reading, spots).finish()
    known = {value.name for value in result.graph.output}
    # A model input is an output of no node; what is fed is known anyway.
    computed = {name for node in result.graph.node for name in node.output}
    for name in dict.fromkeys(spot.tensor for spot in spots.activations):
        if name not in known and name in computed:
            result.graph.output.append(onnx.ValueInfoProto(name=name))
    return result


def quantized_graph(
    model: onnx.ModelProto,
    reading: Reading,
    spots: Spots,
    modes: Iterable[str],
    masked_below: Mapping[int, float],
    biases: Iterable[BiasSpot] = (),
) -> onnx.ModelProto:
    """The model with quantizers.

    Args:
        model: the model, which is left as it is.
        reading: of it.
        spots: where quantizers stand.
        modes: those of MODES that may be asked for.
        masked_below: of quantizers, by index, that leave masked values as they are.
        biases: those that are fed.
    """
    editor = with_fed_params(model, reading, spots)
    for bias in biases:
        editor.add_input(bias.feed, np.dtype(np.float32), tuple(bias.values.shape))
        editor.redirect([bias.reader], bias.feed)
    in_use = [mode for mode in MODES if mode in set(modes)]
    fed: set[str] = set()

    def feed(what: str, quantizer: int, dtype: type[np.generic]) -> str:
        name = feed_name(what, quantizer)
        if name not in fed:
            fed.add(name)
            editor.add_input(name, np.dtype(dtype), ())
        return name

    # What stands at a reader's input reads what stands at the tensor.
    for spot in sorted(spots.activations, key=lambda spot: bool(spot.readers)):
        quantizing = _Quantizing(spot, reading.element_types[spot.tensor], feed)
        editor.insert(spot, quantizing.nodes(in_use, masked_below))
    return editor.finish()


class _Quantizing:
    """The nodes of a quantizer at one tensor, from `raw` to `quantized`."""

    def __init__(self, spot: Spot, dtype: np.dtype[Any], feed: _Feed) -> None:
        self._quantizer = spot.quantizer
        self._feed = feed
        self._type = helper.np_dtype_to_tensor_dtype(dtype)
        self._stem = f"{_PREFIX}quantizer/{spot.quantizer}/{spot.tensor}"
        self.raw = f"{self._stem}/raw"
        self.quantized = f"{self._stem}/quantized"

    def nodes(
        self, modes: list[str], masked_below: Mapping[int, float]
    ) -> list[onnx.NodeProto]:
        """As many as it takes."""
        if self._quantizer not in masked_below:
            return [self._choice(modes, self.quantized)]
        chosen, bound, kept = (f"{self._stem}/{n}" for n in ("any", "bound", "kept"))
        low = onnx.numpy_helper.from_array(
            np.array(masked_below[self._quantizer], self._np_type()), bound
        )
        return [
            self._choice(modes, chosen),
            helper.make_node("Constant", [], [bound], value=low),
            helper.make_node("Greater", [self.raw, bound], [kept]),
            helper.make_node("Where", [kept, chosen, self.raw], [self.quantized]),
        ]

    def _np_type(self) -> np.dtype[Any]:
        return helper.tensor_dtype_to_np_dtype(self._type)

    def _choice(self, modes: list[str], output: str) -> onnx.NodeProto:
        """`output`, as the first mode whose flag is set makes it."""
        if not modes:
            return helper.make_node("Identity", [self.raw], [output])
        mode, *rest = modes
        stem = f"{self._stem}/{mode}"
        flag = self._feed(mode, self._quantizer, np.bool_)
        then = self._mode_nodes(mode, stem)
        otherwise = self._choice(rest, f"{stem}/else")
        return helper.make_node(
            "If",
            [flag],
            [output],
            name=stem,
            then_branch=self._branch(then, f"{stem}/then"),
            else_branch=self._branch([otherwise], f"{stem}/else_branch"),
        )

    def _branch(self, nodes: list[onnx.NodeProto], name: str) -> onnx.GraphProto:
        result = helper.make_tensor_value_info(
            nodes[-1].output[0], self._type, shape=None
        )
        return helper.make_graph(nodes, name, [], [result])

    def _mode_nodes(self, mode: str, stem: str) -> list[onnx.NodeProto]:
        if mode in _FLOAT_TYPES:
            narrow = _FLOAT_TYPES[mode]
            return [
                helper.make_node("Cast", [self.raw], [f"{stem}/narrow"], to=narrow),
                helper.make_node(
                    "Cast", [f"{stem}/narrow"], [f"{stem}/y"], to=self._type
                ),
            ]
        kind = np.float64 if mode == WIDE else np.float32
        compute = TensorProto.DOUBLE if mode == WIDE else TensorProto.FLOAT
        numbers = [self._feed(what, self._quantizer, kind) for what in grid_names(mode)]
        nodes = []
        x, y = self.raw, f"{stem}/y"
        if mode == INTEGER and self._type == TensorProto.DOUBLE:
            compute = self._type
            for index, number in enumerate(numbers):
                numbers[index] = f"{stem}/double_{index}"
                nodes.append(
                    helper.make_node("Cast", [number], [numbers[index]], to=compute)
                )
        elif self._type != compute:
            x, y = f"{stem}/x", f"{stem}/computed"
            nodes.append(helper.make_node("Cast", [self.raw], [x], to=compute))
        scale, low, high = numbers
        steps = [f"{stem}/{step}" for step in ("ratio", "rounded", "clipped")]
        nodes += [
            helper.make_node("Div", [x, scale], [steps[0]]),
            helper.make_node("Round", [steps[0]], [steps[1]]),
            helper.make_node("Clip", [steps[1], low, high], [steps[2]]),
            helper.make_node("Mul", [steps[2], scale], [y]),
        ]
        if self._type != compute:
            nodes.append(helper.make_node("Cast", [y], [f"{stem}/y"], to=self._type))
        return nodes


class _Editor:
    """A copy of a model, changed without losing what node has which index."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._graph = self._model.graph
        self._producers = {
            name: index
            for index, node in enumerate(self._graph.node)
            for name in node.output
            if name
        }
        self._behind: dict[int, list[onnx.NodeProto]] = {}  # by node; -1: in front

    def add_input(
        self,
        name: str,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
    ) -> None:
        """A further graph input."""
        kind = helper.np_dtype_to_tensor_dtype(dtype)
        self._graph.input.append(helper.make_tensor_value_info(name, kind, shape))

    def redirect(self, readers: Iterable[tuple[int, int]], name: str) -> None:
        """From now on these inputs of nodes read the tensor `name`."""
        for node, slot in readers:
            self._graph.node[node].input[slot] = name

    def insert(self, spot: Spot, nodes: list[onnx.NodeProto]) -> None:
        """Puts a quantizer's nodes at a tensor: what it reads as ".../raw" is the
        tensor, what it makes as ".../quantized" takes its place.
        """
        producer = self._producers.get(spot.tensor, -1)
        stem = f"{_PREFIX}quantizer/{spot.quantizer}/{spot.tensor}"
        raw, quantized = spot.tensor, f"{stem}/quantized"
        if spot.readers:
            self.redirect(spot.readers, quantized)
        else:
            raw, quantized = f"{stem}/raw", spot.tensor
            outputs = self._graph.node[producer].output
            outputs[list(outputs).index(spot.tensor)] = raw
        names = {f"{stem}/raw": raw, f"{stem}/quantized": quantized}
        for node in nodes:
            rename_tensors(node, names, outputs=True)
        self._behind.setdefault(producer, []).extend(nodes)

    def finish(self) -> onnx.ModelProto:
        """The changed model; weights that nothing reads any more are gone."""
        nodes = list(self._behind.get(-1, []))
        for index, node in enumerate(self._graph.node):
            nodes += [node, *self._behind.get(index, [])]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self._graph.node[:]
        self._graph.node.extend(copies)
        _drop_unread(self._graph)
        del self._graph.value_info[:]  # shapes of tensors that have moved
        return self._model


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {value.name for value in graph.output}
    for node in graph.node:
        read.update(node.input)
        read.update(captured(node))
    for stored in (graph.initializer, graph.input):
        unread = [
            value
            for value in stored
            if value.name not in read
            and (stored is graph.initializer or value.name.startswith(_PREFIX))
        ]
        for value in unread:
            stored.remove(value)
