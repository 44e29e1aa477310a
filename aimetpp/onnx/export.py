# SPDX-License-Identifier: BSD-3-Clause
"""ONNX files of an ONNX simulation: the model with QDQ nodes, and its encodings.

A marker is put where each quantizer stands, of which `aimetpp.export.qdq` makes
QuantizeLinear and DequantizeLinear, as it does for PyTorch models. Every tensor of the
model keeps its name: what is quantized of it has another one, but for model outputs,
where the quantized tensor has the output's name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from aimetpp.export.encodings import Encoding, check_version
from aimetpp.export.external_data import fits_one_file
from aimetpp.export.files import require_writable_folder, write_together
from aimetpp.export.graph_editor import GraphEditor, names_read_by, rename_tensors
from aimetpp.export.integer_types import raise_opset, required_opset
from aimetpp.export.onnx import QdqModel, onnx_files
from aimetpp.export.qdq import MARKER_DOMAIN, MARKER_OP, insert_qdq
from aimetpp.onnx.quantized_graph import Spot

if TYPE_CHECKING:
    from aimetpp.onnx.quantsim import QuantizationSimModel

_TYPE_NAMES = {
    "float32": "Float",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "float64": "Double",
}


def export(
    sim: QuantizationSimModel,
    path: str | os.PathLike[str],
    filename_prefix: str,
    *,
    encoding_version: str | None = None,
    export_int32_bias: bool | None = None,
) -> None:
    """Writes `<prefix>.onnx` and `<prefix>.encodings`, together or not at all.

    Args:
        sim: a calibrated simulation.
        path: the folder; made if missing.
        filename_prefix: of the file names.
        encoding_version: "0.6.1", "1.0.0" (default) or "2.0.0".
        export_int32_bias: as in `build_qdq_model`.

    Raises:
        OSError: the folder cannot be written; nothing has been computed.
        ValueError, RuntimeError: as `build_qdq_model`.
    """
    version = check_version(encoding_version)
    folder = Path(path)
    require_writable_folder(folder)
    exported = build_qdq_model(sim, export_int32_bias)
    target = folder / f"{filename_prefix}.onnx"
    write_together(onnx_files(sim, exported, target, version))


def build_qdq_model(
    sim: QuantizationSimModel, export_int32_bias: bool | None = None
) -> QdqModel:
    """The model with QDQ nodes where the simulation's quantizers are.

    Args:
        sim: a calibrated simulation.
        export_int32_bias: False leaves biases in float; otherwise they are 32-bit
            integers in steps of input scale x weight scale, and have encodings in
            files of version 2.0.0, with True in those of other versions too.

    Raises:
        ValueError: a precision that ONNX cannot express, or needs an opset to which
            the model cannot be converted; the message names the tensor.
        RuntimeError: a quantizer is not calibrated.
    """
    quantizers = sim.placement.quantizers
    encodings = {}  # by the id of the quantizer's first site
    for index, spec in enumerate(quantizers):
        quantizer = sim._bank.entries[index].current()
        if quantizer is not None:
            site = spec.sites[0]
            encodings[site] = Encoding.of(quantizer, sim.graph.site_name(site))
    names = {site: sim.graph.site_name(site) for site in encodings}
    model = _at_opset(sim.model, required_opset(encodings, names))
    # A conversion keeps the names of nodes, not their places.
    node_names = [node.name for node in sim.model.graph.node]
    editor = _Marking(model, node_names, sim.reading.constants)
    # What stands at a reader's input reads what stands at the tensor.
    activations = sorted(sim.spots.activations, key=lambda spot: bool(spot.readers))
    for spot in (*sim.spots.params, *activations):
        site = quantizers[spot.quantizer].sites[0]
        if site in encodings:
            editor.mark(spot, site, sim.reading.element_types[spot.tensor])
    params = [spec.sites[0] for spec in quantizers if spec.kind == "param"]
    tensors = insert_qdq(
        editor.finish(), encodings, names, params, export_int32_bias is not False
    )
    if _passes_checker(sim.model):
        onnx.checker.check_model(model)
    return QdqModel(model, tensors, export_int32_bias)


def _passes_checker(model: onnx.ModelProto) -> bool:
    """False for what onnxruntime runs all the same, such as outputs without shapes."""
    if not fits_one_file(model):  # the checker takes no larger one
        return False
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError:
        return False
    return True


def _at_opset(model: onnx.ModelProto, needed: int) -> onnx.ModelProto:
    """A copy of the model at `needed` or higher."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    try:
        return raise_opset(copied, needed)
    except RuntimeError as error:
        raise ValueError(
            f"ONNX export: the precisions need opset {needed}, to which the model "
            f"cannot be converted: {error}"
        ) from error


class _Marking:
    """Puts marker nodes into a model."""

    def __init__(
        self,
        model: onnx.ModelProto,
        node_names: list[str],
        constants: Mapping[str, np.ndarray],
    ) -> None:
        self._model = model
        self._node_names = node_names
        self._nodes = {node.name: node for node in model.graph.node}
        self._editor = GraphEditor(model.graph)
        self._constants = constants
        self._behind: dict[str, list[onnx.NodeProto]] = {}  # by the tensor marked
        self._read_instead: dict[str, str] = {}
        model.opset_import.append(helper.make_opsetid(MARKER_DOMAIN, 1))

    def mark(self, spot: Spot, site: int, dtype: np.dtype[Any]) -> None:
        """Puts a marker where a quantizer stands."""
        graph = self._model.graph
        source, output = spot.tensor, self._free_name(f"{spot.tensor}_dequantized")
        is_constant = source in self._constants
        if is_constant and source not in self._editor.initializers:
            self._store(source)
        if spot.readers:
            for node, slot in spot.readers:
                self._nodes[self._node_names[node]].input[slot] = output
        elif source in self._editor.outputs:
            source, output = self._free_name(f"{source}_float"), source
            for node in graph.node:
                for index, name in enumerate(node.output):
                    if name == spot.tensor:
                        node.output[index] = source
        else:
            self._read_instead[source] = output
        reads = self._read_instead.get(source, source) if spot.readers else source
        marker = helper.make_node(
            MARKER_OP,
            [reads],
            [output],
            name=f"{spot.tensor}_quantizer",
            domain=MARKER_DOMAIN,
            id=site,
            dtype=_TYPE_NAMES[dtype.name],
        )
        self._behind.setdefault(source, []).append(marker)

    def _free_name(self, wanted: str) -> str:
        return self._editor.unique_name(wanted)

    def _store(self, name: str) -> None:
        """Stores what nodes compute of constants."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(self._constants[name]))
        for node in self._model.graph.node:
            for index, output in enumerate(node.output):
                if output == name:
                    node.output[index] = self._free_name(f"{name}_computed")
        tensor.name = name
        self._model.graph.initializer.append(tensor)
        self._editor.initializers[name] = tensor

    def finish(self) -> onnx.ModelProto:
        """The model, each marker behind the node that makes what it reads."""
        graph = self._model.graph
        made = {name for node in graph.node for name in node.output}
        nodes = [m for name, ms in self._behind.items() if name not in made for m in ms]
        for node in graph.node:
            rename_tensors(node, self._read_instead)
            nodes.append(node)
            for name in node.output:
                nodes += self._behind.get(name, [])
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(_without_unread(copies, self._editor.outputs))
        return self._model


def _without_unread(
    nodes: list[onnx.NodeProto], outputs: set[str]
) -> list[onnx.NodeProto]:
    """Drops nodes that computed what is stored now."""
    read = set(outputs)
    kept = []
    for node in reversed(nodes):
        if any(name in read for name in node.output):
            kept.append(node)
            read.update(names_read_by(node))
    return kept[::-1]
