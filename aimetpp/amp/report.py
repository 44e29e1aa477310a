# SPDX-License-Identifier: BSD-3-Clause
"""HTML pages of a search: the Pareto curve, the sensitivities, both with tables.

The pages hold the plotting library, so that they open without a network.
"""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import Any

from bokeh.embed import file_html
from bokeh.layouts import column
from bokeh.models import ColumnDataSource, FactorRange, HoverTool
from bokeh.models.widgets.markups import Div
from bokeh.plotting import figure
from bokeh.resources import INLINE

from aimetpp.amp.candidates import candidate_text
from aimetpp.amp.group_picture import group_picture
from aimetpp.amp.results import (
    ParetoList,
    ParetoPoint,
    format_alpha_table,
    format_pareto_table,
    format_sensitivity_table,
    point_candidate,
    point_name,
)
from aimetpp.amp.simulation import Simulation
from aimetpp.common.files import atomic_write

_COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#17becf")


def write_pages(folder: Path, result: ParetoList, sim: Simulation) -> None:
    """Writes the pages of a search, each whole or not at all.

    `pareto_curve.html`, `quantizer_group_sensitivity.html` and `report.html`, which
    also shows the groups over the simulation's graph.

    Raises:
        OSError: the folder cannot be written.
    """
    pages = {
        "pareto_curve": ("Pareto curve", [_curve(result)]),
        "quantizer_group_sensitivity": (
            "Quantizer group sensitivity",
            [_sensitivity(result)],
        ),
        "report": (
            "Automatic mixed precision",
            [
                _summary(result),
                _curve(result),
                _table(format_pareto_table(result)),
                _sensitivity(result),
                _table(format_sensitivity_table(result)),
                *_alphas(result),
                group_picture(sim),
            ],
        ),
    }
    for name, (title, parts) in pages.items():
        page = file_html(column(*parts, sizing_mode="stretch_width"), INLINE, title)
        atomic_write(folder / f"{name}.html", page)


def _source(result: ParetoList, points: list[ParetoPoint]) -> ColumnDataSource:
    data: dict[str, list[Any]] = {
        "cost": [point.cost for point in points],
        "score": [point.score for point in points],
        "group": [point_name(point, result) for point in points],
        "candidate": [point_candidate(point, result) for point in points],
        "weights": [point.weight_bytes for point in points],
        "activations": [point.activation_bytes for point in points],
        "dominated": ["yes" if point.dominated else "no" for point in points],
        "color": ["#aaaaaa" if point.dominated else _COLORS[0] for point in points],
    }
    return ColumnDataSource(data)


def _curve(result: ParetoList) -> Any:
    """Relative bit-ops against score; infinite scores cannot be drawn."""
    points = [point for point in result.points if math.isfinite(point.score)]
    plot = figure(
        title="Score against relative bit-ops",
        x_axis_label="bit-ops relative to the baseline",
        y_axis_label="score",
        height=420,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,wheel_zoom,reset,save",
    )
    front = sorted(
        (point for point in points if not point.dominated), key=lambda p: p.cost
    )
    line = ColumnDataSource(
        {"cost": [p.cost for p in front], "score": [p.score for p in front]}
    )
    plot.line("cost", "score", source=line, color=_COLORS[0], legend_label="front")
    dots = plot.scatter(
        "cost",
        "score",
        source=_source(result, points),
        size=8,
        color="color",
        legend_label="evaluated (grey: dominated)",
    )
    chosen = result.chosen or result.points[0]
    if math.isfinite(chosen.score):
        plot.scatter(
            "cost",
            "score",
            source=_source(result, [chosen]),
            size=18,
            marker="star",
            color="#d62728",
            legend_label="chosen",
        )
    if points and math.isfinite(result.fp32_score):
        costs = [point.cost for point in points]
        plot.line(
            [min(costs), max(costs)],
            [result.fp32_score, result.fp32_score],
            line_dash="dashed",
            color="black",
            legend_label="full precision",
        )
    plot.add_tools(
        HoverTool(
            renderers=[dots],
            tooltips=[
                ("group", "@group"),
                ("candidate", "@candidate"),
                ("bit-ops", "@cost{0.0000}"),
                ("score", "@score{0.0000}"),
                ("weight bytes", "@weights{0,0}"),
                ("activation bytes", "@activations{0,0}"),
                ("dominated", "@dominated"),
            ],
        )
    )
    _legend_below(plot)
    return plot


def _legend_below(plot: Any) -> None:
    """Moves the legend out of the drawing, where it would hide marks."""
    plot.legend.orientation = "horizontal"
    plot.add_layout(plot.legend[0], "below")


def _sensitivity(result: ParetoList) -> Any:
    """The phase-1 score of every group, one mark for each candidate.

    The axis follows the scores, which may be negative.
    """
    items = [item for item in result.sensitivities if math.isfinite(item.score)]
    if not items:
        return Div(
            text=f"<p>No sensitivities were measured: {html.escape(result.stop_reason)}"
            "</p>"
        )
    groups = list(dict.fromkeys(str(item.group) for item in reversed(items)))
    plot = figure(
        title="Score with one group quantized alone",
        x_axis_label="phase-1 score",
        y_range=FactorRange(factors=groups),
        height=max(200, 26 * len(groups) + 120),
        sizing_mode="stretch_width",
        tools="pan,box_zoom,wheel_zoom,reset,save",
    )
    candidates = list(dict.fromkeys(candidate_text(item.candidate) for item in items))
    for index, candidate in enumerate(candidates):
        chosen = [item for item in items if candidate_text(item.candidate) == candidate]
        plot.scatter(
            "score",
            "group",
            source=ColumnDataSource(
                {
                    "score": [item.score for item in chosen],
                    "group": [str(item.group) for item in chosen],
                    "candidate": [candidate] * len(chosen),
                    "saved": [item.bit_ops_reduction for item in chosen],
                }
            ),
            size=10,
            color=_COLORS[index % len(_COLORS)],
            legend_label=candidate,
        )
    plot.add_tools(
        HoverTool(
            tooltips=[
                ("group", "@group"),
                ("candidate", "@candidate"),
                ("score", "@score{0.0000}"),
                ("bit-ops saved", "@saved{0,0}"),
            ]
        )
    )
    _legend_below(plot)
    return plot


def _summary(result: ParetoList) -> Div:
    summary = result.summary
    chosen = result.chosen
    base = point_candidate(result.points[0], result)
    rows = [
        ("stopped", summary.stop_reason),
        ("score in full precision", f"{summary.fp32_score:.6g}"),
        ("score at the baseline", f"{summary.baseline_score:.6g} ({base})"),
        ("score of the chosen point", f"{summary.final_score:.6g}"),
        ("its relative bit-ops", f"{chosen.cost if chosen else 1:.4f}"),
        ("baseline bit-ops per sample", f"{summary.baseline_bit_ops:,.0f}"),
        ("quantizer groups", str(summary.num_groups)),
        ("evaluations", str(result.evaluations)),
    ]
    cells = "".join(
        f"<tr><td>{html.escape(name)}&emsp;</td><td>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return Div(text=f"<h2>Automatic mixed precision</h2><table>{cells}</table>")


def _alphas(result: ParetoList) -> list[Div]:
    if not result.alphas:
        return []
    return [Div(text="<h3>Convert ops</h3>"), _table(format_alpha_table(result))]


def _table(text: str) -> Div:
    return Div(text=f"<pre>{html.escape(text)}</pre>")
