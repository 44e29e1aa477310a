# SPDX-License-Identifier: BSD-3-Clause
"""An ONNX model as the simulation takes it, and as the engine's op graph."""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import torch
from google.protobuf.message import DecodeError
from onnx import AttributeProto, numpy_helper

from aimetpp import _C
from aimetpp.onnx.runtime import SessionMaker

# Clip with its limits as inputs, Round.
_FIRST_OPSET = 11
# From which on what is stored is not listed among the inputs.
_FIRST_IR_VERSION = 4
_QUANTIZING = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
# Whose operands may be masks of attention scores.
_MASKING = ("Add", "Sub", "Where")
_TEXTS = ("equation", "mode")  # attributes that tell what a node does


def load_model(model: Any) -> onnx.ModelProto:
    """A copy of a model, or the model in a file with its external data, in which
    every node has a name of its own and no function is called. Nodes that share a name
    have their index in the graph behind it: by the name alone, one of them would be
    taken for all.

    Args:
        model: an onnx.ModelProto, or a path.

    Raises:
        TypeError: something else.
        OSError: the file cannot be read.
        ValueError: the model is quantized already, or the file is no ONNX model.
    """
    if isinstance(model, str | os.PathLike):
        loaded = _load_file(os.fspath(model))
    elif isinstance(model, onnx.ModelProto):
        loaded = copy.deepcopy(model)
    else:
        raise TypeError(
            "model must be an onnx.ModelProto or the path of an .onnx file, got "
            f"{type(model).__name__}"
        )
    if loaded.functions:
        loaded = onnx.inliner.inline_local_functions(loaded)
    quantizing = [n.op_type for n in loaded.graph.node if n.op_type in _QUANTIZING]
    if quantizing:
        raise ValueError(
            f"the model is quantized already: it has {len(quantizing)} nodes such as "
            f"{quantizing[0]}; a simulation takes the float model"
        )
    _store_densely(loaded.graph)
    _unlist_initializers(loaded.graph)
    loaded.ir_version = max(loaded.ir_version, _FIRST_IR_VERSION)
    loaded = _at_opset(loaded)
    _name_nodes(loaded.graph)
    return loaded


def _load_file(path: str) -> onnx.ModelProto:
    try:
        loaded = onnx.load_model(path)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ValueError(f"{path} cannot be read as an ONNX model: {error}") from error
    if not loaded.opset_import:
        raise ValueError(f"{path} is not an ONNX model: it names no opset")
    return loaded


def _store_densely(graph: onnx.GraphProto) -> None:
    """Makes initializers of sparse ones, as onnxruntime does."""
    for sparse in graph.sparse_initializer:
        values = numpy_helper.to_array(sparse.values)
        indices = numpy_helper.to_array(sparse.indices)
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        dense[
            np.unravel_index(indices, dense.shape)
            if indices.ndim == 1
            else tuple(indices.T)
        ] = values
        graph.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
    del graph.sparse_initializer[:]


def _at_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    for opset in model.opset_import:
        if opset.domain == "ai.onnx":  # the same by another name
            opset.domain = ""
    versions = [o.version for o in model.opset_import if not o.domain]
    if not versions:  # every node is of another domain
        model.opset_import.append(onnx.helper.make_opsetid("", _FIRST_OPSET))
        return model
    version = versions[0]
    if version >= _FIRST_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, _FIRST_OPSET)
    except RuntimeError as error:
        raise ValueError(
            f"the model is of opset {version}, and cannot be converted to opset "
            f"{_FIRST_OPSET}, the first that a simulation can be made of: {error}"
        ) from error


def _unlist_initializers(graph: onnx.GraphProto) -> None:
    """Old files list what they store among the inputs."""
    stored = {initializer.name for initializer in graph.initializer}
    for value in [value for value in graph.input if value.name in stored]:
        graph.input.remove(value)


def _name_nodes(graph: onnx.GraphProto) -> None:
    counts = Counter(node.name for node in graph.node)
    taken = set(counts)
    for index, node in enumerate(graph.node):
        if not node.name or counts[node.name] > 1:
            name = f"{node.name or node.op_type}_{index}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)


def example_feeds(model: onnx.ModelProto, dummy_input: Any) -> dict[str, np.ndarray]:
    """What to feed the model's inputs with.

    Args:
        model: as loaded.
        dummy_input: a dict by input name; an array or tensor, or a tuple or list of
            them in the order of the inputs; None: random numbers of the inputs'
            shapes, with 1 for every size that the model leaves open.

    Raises:
        TypeError: something else.
        ValueError: another number of inputs, or other names, than the model has.
    """
    inputs = {value.name: value for value in model.graph.input}
    if dummy_input is None:
        return {name: _example_of(value) for name, value in inputs.items()}
    if isinstance(dummy_input, np.ndarray | torch.Tensor):
        dummy_input = [dummy_input]
    if isinstance(dummy_input, tuple | list):
        if len(dummy_input) != len(inputs):
            raise ValueError(
                f"dummy_input must have an entry for each of the {len(inputs)} inputs "
                f"{', '.join(inputs)}, got {len(dummy_input)}"
            )
        dummy_input = dict(zip(inputs, dummy_input, strict=True))
    if not isinstance(dummy_input, Mapping):
        raise TypeError(
            "dummy_input must be a dict by input name, an array, or a list of arrays, "
            f"got {type(dummy_input).__name__}"
        )
    if set(dummy_input) != set(inputs):
        raise ValueError(
            f"dummy_input must have the inputs {', '.join(inputs)}, got "
            f"{', '.join(map(str, dummy_input))}"
        )
    return {name: as_array(dummy_input[name]) for name in inputs}


def as_array(value: Any) -> np.ndarray:
    """A tensor or anything that numpy takes, as an array."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    return np.asarray(value)


def _example_of(value: onnx.ValueInfoProto) -> np.ndarray:
    tensor = value.type.tensor_type
    shape = [dim.dim_value or 1 for dim in tensor.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if dtype.kind == "f":
        return np.random.default_rng(0).standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return np.ones(shape, dtype)
    if dtype.kind in "iu":
        return np.zeros(shape, dtype)
    raise ValueError(
        f"dummy_input is required: input {value.name!r} is of type {dtype}, of which "
        "no example can be made up"
    )


@dataclass(frozen=True)
class Reading:
    """A model as the engine sees it.

    Attributes:
        graph: its ops; their calls have the names of nodes, their sites of tensors.
        places: by site: (index of the node, index among its inputs or outputs).
        constants: floating tensors that are the same in every run, by name.
        element_types: of every floating tensor, by name.
    """

    graph: _C.OpGraph
    places: list[tuple[int, int]]
    constants: dict[str, np.ndarray]
    element_types: dict[str, np.dtype[Any]]


def read_model(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], maker: SessionMaker
) -> Reading:
    """Runs the model once and reads what is computed where.

    Raises:
        Exception: onnxruntime's own, of a model or feeds that it cannot run.
    """
    values = _run_all(model, feeds, maker)
    origins = _origins(model.graph, feeds)
    index: dict[str, int] = {}
    onnx_values: list[_C.OnnxValue] = []
    for name in origins:
        index[name] = len(onnx_values)
        onnx_values.append(_value(name, origins[name], values.get(name)))
    nodes = [_node(node, index, values) for node in model.graph.node]
    graph, places = _C.read_onnx_graph(
        onnx_values,
        nodes,
        [index[value.name] for value in model.graph.input],
        [index[value.name] for value in model.graph.output],
    )
    floating = {name: v for name, v in values.items() if _is_floating(v)}
    return Reading(
        graph,
        places,
        {name: v for name, v in floating.items() if origins[name] != "computed"},
        {name: value.dtype for name, value in floating.items()},
    )


def _is_floating(value: Any) -> bool:
    return isinstance(value, np.ndarray) and (
        value.dtype.kind == "f" or value.dtype.name == "bfloat16"
    )


def _run_all(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], maker: SessionMaker
) -> dict[str, Any]:
    """The value of every tensor of the main graph, by name."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output if name]
    known = {value.name for value in probe.graph.output}
    probe.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in known
    )
    session = maker.make(probe, optimize=False)
    outputs = [value.name for value in session.get_outputs()]
    values = dict(zip(outputs, session.run(None, dict(feeds)), strict=True))
    values.update(feeds)
    for initializer in model.graph.initializer:
        values[initializer.name] = numpy_helper.to_array(initializer)
    return values


def _origins(graph: onnx.GraphProto, feeds: Mapping[str, Any]) -> dict[str, str]:
    """What every tensor depends on, by name: see OnnxOrigin in onnx_reader.h."""
    origins = dict.fromkeys(feeds, "computed")
    origins.update((value.name, "parameter") for value in graph.initializer)
    for node in graph.node:
        reads = {origins[name] for name in [*node.input, *captured(node)] if name}
        origin = "constant"
        if "computed" in reads or _is_random(node):
            origin = "computed"
        elif "parameter" in reads:
            origin = "parameter"
        origins.update((name, origin) for name in node.output if name)
    return origins


def _is_random(node: onnx.NodeProto) -> bool:
    return node.op_type.startswith("Random") or node.op_type in (
        "Bernoulli",
        "Multinomial",
    )


def captured(node: onnx.NodeProto) -> list[str]:
    """Tensors of the graph around a node that the graphs inside it read."""
    found: dict[str, None] = {}
    for inner in _inner_graphs(node):
        own = {value.name for value in [*inner.input, *inner.initializer]}
        for child in inner.node:
            for name in [*child.input, *captured(child)]:
                if name and name not in own:
                    found[name] = None
            own.update(child.output)
        found.update((v.name, None) for v in inner.output if v.name not in own)
    return list(found)


def _inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _value(name: str, origin: str, value: Any) -> _C.OnnxValue:
    floating = _is_floating(value)
    number = None
    if floating and origin != "computed" and value.size == 1:
        number = float(value.reshape(()))
    shape = list(value.shape) if isinstance(value, np.ndarray) else None
    return _C.OnnxValue(name, origin, floating, shape, number)


def _node(
    node: onnx.NodeProto, index: Mapping[str, int], values: Mapping[str, Any]
) -> _C.OnnxNode:
    numbers = {a.name: a.i for a in node.attribute if a.type == AttributeProto.INT}
    texts = {a.name: a.s.decode() for a in node.attribute if a.name in _TEXTS}
    masks = []
    if node.op_type in _MASKING:
        masks = [_mask(node, slot, values) for slot in range(len(node.input))]
    return _C.OnnxNode(
        node.name,
        node.op_type,
        [index[name] if name else -1 for name in node.input],
        [index[name] if name else -1 for name in node.output],
        [index[name] for name in captured(node)],
        numbers,
        texts,
        masks,
    )


def _mask(node: onnx.NodeProto, slot: int, values: Mapping[str, Any]) -> _C.MaskFacts:
    value = values.get(node.input[slot])
    if value is None or not _is_floating(value):
        return _C.MaskFacts()
    negated = node.op_type == "Sub" and slot == 1
    tensor = torch.from_numpy(np.array(value, np.float32))
    return _C.classify_mask(tensor, negated)
