# SPDX-License-Identifier: BSD-3-Clause
"""Which tensor of the exported ONNX file shows which site's quantizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import onnx
from onnx import helper

from aimetpp.export.data_movement import spread_encodings
from aimetpp.export.encodings import Encoding
from aimetpp.export.onnx import export_with_markers
from aimetpp.export.qdq import MARKER_DOMAIN

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel

# Stands for any encoding: only where it is carried on to counts.
_ANY = Encoding("int8", False, (1.0,), (0,), 0, 255)


def sites_by_tensor(
    sim: QuantizationSimModel, names: Collection[str], options: Mapping[str, Any]
) -> tuple[dict[str, set[int]], set[str]]:
    """The sites that each tensor of the ONNX file stands for.

    Args:
        sim: a simulation, which need not be calibrated.
        names: of an encodings file. A tensor that several sites read is one name for
            all of them, unless the file has names for each.
        options: as given to the export that wrote the file (`input_names`, ...).

    Returns:
        Sites by name, none for tensors that stand for no activation's; and those of
        `names` whose encodings follow from another tensor's.
    """
    options = {**sim.export_options(), **options}
    graph = export_with_markers(sim, sim.dummy_input, off_too=True, **options).graph
    outputs = {value.name for value in graph.output}
    tensors = [value.name for value in graph.input]
    tensors += [name for node in graph.node for name in node.output]
    sites: dict[str, set[int]] = {name: set() for name in tensors}
    on_grid: dict[str, Encoding] = {}
    for node in graph.node:
        if node.domain != MARKER_DOMAIN:
            continue
        output, source = node.output[0], node.input[0]
        own = output in names or output in outputs
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        sites.setdefault(output if own else source, set()).add(attributes["id"])
        on_grid[output] = _ANY
    moved = spread_encodings(_without_markers(graph), on_grid)
    return sites, {name for name in names if name in moved and not sites.get(name)}


def _without_markers(graph: onnx.GraphProto) -> onnx.GraphProto:
    """Its other nodes: a marker has the type name of a node that it is not."""
    plain = onnx.GraphProto(initializer=graph.initializer)
    plain.node.extend(n for n in graph.node if n.domain != MARKER_DOMAIN)
    return plain
