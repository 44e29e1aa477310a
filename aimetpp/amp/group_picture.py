# SPDX-License-Identifier: BSD-3-Clause
"""A picture of the quantizer groups over the model's graph."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from bokeh.models import ColumnDataSource, HoverTool, Range1d
from bokeh.palettes import Category20
from bokeh.plotting import figure

from aimetpp import _C
from aimetpp.amp.quantizer_groups import GroupMembers, build_members
from aimetpp.amp.report_page import TALLEST, page
from aimetpp.amp.simulation import Simulation
from aimetpp.common.files import atomic_write

_NO_GROUP = "#dddddd"
_PIXELS_PER_LAYER = 46
_LARGEST_MARK = 17
_LARGEST_LETTER = 11


def write_group_picture(sim: Simulation, path: str | os.PathLike[str]) -> None:
    """Writes an HTML page, complete in itself, with the model's ops as a graph.

    The inside of a mark has the color of the group that the op's output is in, its rim
    that of the group of its parameters, a line that of the activation it carries; grey
    is in no group. What an op reads stands above it. Names and precisions show under
    the pointer.

    Args:
        sim: a QuantizationSimModel.
        path: the file.

    Raises:
        OSError: the file cannot be written.
    """
    plots = {"groups": group_picture(sim)}
    atomic_write(path, page("Quantizer groups", ["{{plot groups}}"], plots))


def picture_data(sim: Simulation) -> dict[str, Any]:
    """What the picture shows, as plain values: marks, lines, number of groups."""
    graph = sim.graph
    groups = build_members(sim)
    group_of = {q: i for i, members in enumerate(groups) for q in members.quantizers}
    shown = [i for i, op in enumerate(graph.ops) if op.role != "metadata"]
    places = _places(graph, shown)
    return {
        "groups": len(groups),
        "nodes": _nodes(sim, shown, groups, group_of, places),
        "lines": _lines(sim, shown, group_of, places),
    }


def group_picture(sim: Simulation) -> Any:
    """The picture as a Bokeh figure, to be part of a page."""
    return draw_groups(picture_data(sim))


def draw_groups(data: dict[str, Any]) -> Any:
    """The figure of what `picture_data` returned."""
    nodes = ColumnDataSource(data["nodes"])
    lowest = max([-y for y in data["nodes"]["y"]] + [0])
    pixels = min(_PIXELS_PER_LAYER, TALLEST / (1 + lowest))
    mark = min(_LARGEST_MARK, 0.8 * pixels)
    rightmost = max([*data["nodes"]["x"], 0])
    leftmost = min([*data["nodes"]["x"], 0])
    plot = figure(
        title=f"{data['groups']} quantizer groups",
        height=int(120 + pixels * (1 + lowest)),
        sizing_mode="stretch_width",
        # As far as the marks reach, however many there are.
        y_range=Range1d(start=-lowest - 1, end=1),
        # Room for the names right of the marks.
        x_range=Range1d(start=leftmost - 1, end=max(rightmost + 2.5, leftmost + 6)),
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll=None,
    )
    plot.axis.visible = False
    plot.grid.visible = False
    lines = ColumnDataSource(data["lines"])
    plot.multi_line("xs", "ys", source=lines, color="color", line_width=2, alpha=0.7)
    marks = plot.scatter(
        "x",
        "y",
        source=nodes,
        size=mark,
        fill_color="fill",
        line_color="rim",
        line_width=mark / 4,
    )
    plot.text(
        "x",
        "y",
        text="name",
        source=nodes,
        x_offset=14,
        text_baseline="middle",
        text_font_size=f"{min(_LARGEST_LETTER, pixels):.0f}px",
    )
    names = ("name", "op", "output group", "parameter group", "precisions")
    plot.add_tools(
        HoverTool(renderers=[marks], tooltips=[(n, "@{" + n + "}") for n in names])
    )
    return plot


def _places(graph: _C.OpGraph, shown: Sequence[int]) -> dict[int, tuple[float, float]]:
    """(x, y) by op: a layer lower than all it reads, near below what it reads."""
    layer: dict[int, int] = {}
    x: dict[int, float] = {}
    taken: dict[int, list[float]] = {}
    for index in shown:  # topological order
        sources = [s for s in _sources(graph, index) if s in layer]
        layer[index] = 1 + max((layer[s] for s in sources), default=-1)
        wanted = sum(x[s] for s in sources) / len(sources) if sources else 0.0
        used = taken.setdefault(layer[index], [])
        free = (wanted + step * sign for step in range(len(shown)) for sign in (1, -1))
        x[index] = next(at for at in free if all(abs(at - u) >= 1 for u in used))
        used.append(x[index])
    return {index: (x[index], -float(layer[index])) for index in shown}


def _sources(graph: _C.OpGraph, index: int) -> list[int]:
    producers = (graph.tensors[tensor].producer for tensor in graph.ops[index].inputs)
    return [producer for producer in producers if producer >= 0]


def _color(group: int | None) -> str:
    colors = Category20[20]
    return _NO_GROUP if group is None else str(colors[group % len(colors)])


def _nodes(
    sim: Simulation,
    shown: Sequence[int],
    groups: Sequence[GroupMembers],
    group_of: dict[int, int],
    places: dict[int, tuple[float, float]],
) -> dict[str, list[Any]]:
    quantizer_of = sim.placement.quantizer_of_site
    precisions = sim.precisions()
    columns = ["x", "y", "fill", "rim", "name", "op"]
    columns += ["output group", "parameter group", "precisions"]
    data: dict[str, list[Any]] = {column: [] for column in columns}
    for index in shown:
        op = sim.graph.ops[index]
        outputs = [quantizer_of[site] for site in op.output_sites if site >= 0]
        params = [quantizer_of[param.site] for param in op.params]
        kept = [
            [group_of[q] for q in side if q in group_of] for side in (outputs, params)
        ]
        output, param = (side[0] if side else None for side in kept)
        data["x"].append(places[index][0])
        data["y"].append(places[index][1])
        data["fill"].append(_color(output))
        data["rim"].append(_color(param))
        data["name"].append(op.name)
        data["op"].append(op.onnx_type or op.kind)
        for column, group in (("output group", output), ("parameter group", param)):
            data[column].append("-" if group is None else str(groups[group].group))
        on = [q for q in (*outputs, *params) if q in group_of]
        data["precisions"].append(", ".join(precisions[q] for q in on) or "-")
    return data


def _lines(
    sim: Simulation,
    shown: Sequence[int],
    group_of: dict[int, int],
    places: dict[int, tuple[float, float]],
) -> dict[str, list[Any]]:
    """From each producer to each reader; model inputs come from above."""
    graph, quantizer_of = sim.graph, sim.placement.quantizer_of_site
    data: dict[str, list[Any]] = {"xs": [], "ys": [], "color": []}
    for index in shown:
        op = graph.ops[index]
        x, y = places[index]
        for tensor, site in zip(op.inputs, op.input_sites, strict=True):
            record = graph.tensors[tensor]
            if record.producer not in places and record.origin != "model_input":
                continue
            quantizer = quantizer_of[site] if site >= 0 else -1
            if quantizer < 0:
                quantizer = _carried(graph, quantizer_of, tensor)
            start = places.get(record.producer, (x, y + 0.6))
            data["xs"].append([start[0], x])
            data["ys"].append([start[1], y])
            data["color"].append(_color(group_of.get(quantizer)))
    return data


def _carried(graph: _C.OpGraph, quantizer_of: Sequence[int], tensor: int) -> int:
    """The quantizer of a tensor's values, seen through data movement; -1 for none."""
    source = graph.tensors[graph.value_source(tensor)]
    if source.producer < 0:
        return -1
    sites = graph.ops[source.producer].output_sites
    return next((quantizer_of[site] for site in sites if site >= 0), -1)
