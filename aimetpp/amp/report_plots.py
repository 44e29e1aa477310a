# SPDX-License-Identifier: BSD-3-Clause
"""The plots of a report."""

from __future__ import annotations

from typing import Any

from bokeh.models import ColumnDataSource, FactorRange, HoverTool
from bokeh.plotting import figure

from aimetpp.amp.report_data import Document, finite
from aimetpp.amp.report_page import TALLEST
from aimetpp.common.text import distinct_numbers

_COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#17becf")
_GREY = "#9a9a9a"
_RED = "#e0393e"
_TOOLS = "pan,box_zoom,wheel_zoom,reset,save"
_LONGEST_LABEL = 44
# With more groups than this, rows and letters of the sensitivity plot are small.
_MANY_GROUPS = 40


def draw_curve(document: Document) -> Any:
    """Cost against score; infinite scores cannot be drawn."""
    plot = figure(
        x_axis_label="bit-ops relative to the baseline",
        y_axis_label="score",
        height=460,
        sizing_mode="stretch_width",
        tools=_TOOLS,
        active_scroll=None,
    )
    points = finite(_with_texts(document["points"], "cost", "score"))
    front = sorted(
        (point for point in points if not point["dominated"]),
        key=lambda point: point["cost"],
    )
    for some, color, label in (
        ([p for p in points if p["dominated"]], _GREY, "dominated"),
        (front, _COLORS[0], "front"),
    ):
        if some:
            _scatter(plot, some, color, label)
    _line(plot, front, color=_COLORS[0], legend_label="front")
    chosen = document["points"][document["chosen"]]
    if finite([chosen]):
        plot.scatter(
            [chosen["cost"]],
            [chosen["score"]],
            size=20,
            marker="star",
            color=_RED,
            legend_label="chosen",
        )
    fp32 = {"score": document["summary"]["fp32_score"]}
    if points and finite([fp32]):
        costs = [point["cost"] for point in points]
        ends = [{"cost": cost, **fp32} for cost in (min(costs), max(costs))]
        _line(
            plot, ends, line_dash="dashed", color=_GREY, legend_label="full precision"
        )
    _legend_below(plot)
    return plot


def _scatter(plot: Any, points: list[Document], color: str, label: str) -> None:
    data: dict[str, list[Any]] = {key: [p[key] for p in points] for key in points[0]}
    data["dominated"] = ["yes" if value else "no" for value in data["dominated"]]
    dots = plot.scatter(
        "cost",
        "score",
        source=ColumnDataSource(data),
        size=8,
        color=color,
        legend_label=label,
    )
    plot.add_tools(
        HoverTool(
            renderers=[dots],
            tooltips=[
                ("group", "@group"),
                ("candidate", "@candidate"),
                ("cost", "@cost_text"),
                ("score", "@score_text"),
                ("weight bytes", "@weight_bytes{0,0}"),
                ("activation bytes", "@activation_bytes{0,0}"),
                ("dominated", "@dominated"),
            ],
        )
    )


def _with_texts(rows: list[Document], *keys: str) -> list[Document]:
    """The rows, and how a number of theirs is written: "score_text"."""
    texts = [distinct_numbers([float(row[key]) for row in rows]) for key in keys]
    names = [f"{key}_text" for key in keys]
    return [
        {**row, **dict(zip(names, numbers, strict=True))}
        for row, numbers in zip(rows, zip(*texts, strict=True), strict=True)
    ]


def _line(plot: Any, points: list[Document], **looks: Any) -> None:
    plot.line([p["cost"] for p in points], [p["score"] for p in points], **looks)


def draw_sensitivity(document: Document) -> Any | None:
    """The phase-1 score of every group, one mark for each candidate, the most
    sensitive group on top; None where there is nothing to draw.

    The axis follows the scores, which may be negative.
    """
    items = finite(_with_texts(document["sensitivities"], "score"))
    if not items:
        return None
    names = list(dict.fromkeys(item["group"] for item in items))
    labels = {name: _label(name, number) for number, name in enumerate(names, 1)}
    few = len(names) <= _MANY_GROUPS
    plot = figure(
        x_axis_label="phase-1 score with the group quantized alone",
        x_axis_location="above",
        y_range=FactorRange(factors=[labels[name] for name in names]),
        height=min(TALLEST, max(220, (24 if few else 14) * len(names) + 110)),
        sizing_mode="stretch_width",
        tools=_TOOLS,
        active_scroll=None,
    )
    plot.yaxis.major_label_text_font_size = "12px" if few else "9px"
    plot.yaxis.major_tick_line_color = None
    candidates = list(dict.fromkeys(item["candidate"] for item in items))
    for index, candidate in enumerate(candidates):
        some = [item for item in items if item["candidate"] == candidate]
        data = {key: [item[key] for item in some] for key in some[0]}
        data["label"] = [labels[item["group"]] for item in some]
        plot.scatter(
            "score",
            "label",
            source=ColumnDataSource(data),
            size=10 if few else 7,
            color=_COLORS[index % len(_COLORS)],
            legend_label=candidate,
        )
    plot.add_tools(
        HoverTool(
            tooltips=[
                ("group", "@group"),
                ("candidate", "@candidate"),
                ("score", "@score_text"),
                ("bit-ops saved", "@saved{0.00%}"),
            ]
        )
    )
    _legend_above(plot)
    return plot


def _label(name: str, number: int) -> str:
    """Short enough for an axis, and of one group only."""
    if len(name) <= _LONGEST_LABEL:
        return name
    half = _LONGEST_LABEL // 2 - 2
    return f"{name[:half]}…{name[-half:]} ({number})"


def _legend_below(plot: Any) -> None:
    """Moves the legend out of the drawing, where it would hide marks."""
    _plain_legend(plot)
    plot.add_layout(plot.legend[0], "below")


def _legend_above(plot: Any) -> None:
    """Where a long plot begins."""
    _plain_legend(plot)
    plot.add_layout(plot.legend[0], "above")


def _plain_legend(plot: Any) -> None:
    plot.legend.orientation = "horizontal"
    plot.legend.border_line_color = None
    plot.legend.padding = 2
