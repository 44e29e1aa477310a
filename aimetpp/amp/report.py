# SPDX-License-Identifier: BSD-3-Clause
"""HTML pages of a search: the Pareto curve, the sensitivities, and a report with both.

The pages hold the plotting library, so that they open without a network.
"""

from __future__ import annotations

import html
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aimetpp.amp.estimate import PHASE_TITLES
from aimetpp.amp.group_picture import draw_groups
from aimetpp.amp.report_data import (
    Document,
    read_report_data,
    report_data,
    write_report_data,
)
from aimetpp.amp.report_page import Shown, bits, heading, note, page, table
from aimetpp.amp.report_plots import draw_curve, draw_sensitivity
from aimetpp.amp.results import ParetoList
from aimetpp.amp.simulation import Simulation
from aimetpp.common.files import atomic_write
from aimetpp.common.text import distinct_numbers

PAGES = ("pareto_curve.html", "quantizer_group_sensitivity.html", "report.html")
# Longer tables are in a box that scrolls.
_LONG = 20


def write_pages(
    folder: Path, result: ParetoList, sim: Simulation, settings: dict[str, list[str]]
) -> None:
    """Writes the pages of a search, and the file from which `rewrite_pages` makes them.

    Args:
        folder: where they go.
        result: of the search.
        sim: the simulation.
        settings: see `report_data`.

    Raises:
        OSError: the folder cannot be written.
    """
    document = report_data(result, sim, settings)
    write_report_data(folder, document)
    _write(folder, document)


def rewrite_pages(folder: Path) -> None:
    """Writes the pages of an earlier search again, from its files.

    Raises:
        FileNotFoundError: the folder holds no search's files.
        ValueError: they are damaged.
        OSError: the folder cannot be written.
    """
    _write(folder, read_report_data(folder))


def _write(folder: Path, document: Document) -> None:
    curve, sensitivity, report = PAGES
    atomic_write(
        folder / curve, page("Pareto curve", _curve(), {"curve": draw_curve(document)})
    )
    # A figure belongs to one page: each draws its own.
    plots = _plots(sensitivity=draw_sensitivity(document))
    parts = _sensitivity(document, plots)
    atomic_write(
        folder / sensitivity, page("Quantizer group sensitivity", parts, plots)
    )
    plots = _plots(
        curve=draw_curve(document),
        sensitivity=draw_sensitivity(document),
        groups=draw_groups(document["picture"]),
    )
    body = [
        *_summary(document),
        heading("Curve", "score against cost"),
        *_curve(),
        _points(document),
        *_skipped(document),
        heading("Sensitivity", "each group quantized alone, the most sensitive first"),
        *_sensitivity(document, plots),
        *_sensitivity_table(document),
        heading("Layers", "precision at the baseline → at the chosen point"),
        *_layers(document["layers"]),
        heading("Convert ops", "where neighbours have different precisions"),
        *_convert_ops(document),
        heading("Time", "per phase"),
        _time(document["summary"]),
        heading("Groups", "quantizers that change precision together"),
        note(
            "Inside of a mark: the group of the op's output; rim: of its parameters; "
            "line: of the activation it carries. Names show under the pointer."
        ),
        "{{plot groups}}",
    ]
    atomic_write(
        folder / report, page("Automatic mixed precision", body, plots, links=True)
    )


def _plots(**plots: Any) -> dict[str, Any]:
    return {name: plot for name, plot in plots.items() if plot is not None}


def _column(rows: list[Document], key: str) -> list[Shown]:
    """Numbers of rows; infinite ones are text in JSON."""
    return [Shown(text) for text in distinct_numbers([float(r[key]) for r in rows])]


def _summary(document: Document) -> list[str]:
    summary, points = document["summary"], document["points"]
    chosen = points[document["chosen"]]
    names = ("fp32_score", "baseline_score", "final_score")
    full, baseline, final = distinct_numbers([float(summary[name]) for name in names])
    ours = sum(summary["evaluations"].values())
    reference = sum(summary["reference_evaluations"].values())
    rows = [
        ("stopped", summary["stop_reason"]),
        ("score in full precision", full),
        ("score at the baseline", f"{baseline} ({points[0]['candidate']})"),
        ("score of the chosen point", final),
        ("its relative bit-ops", f"{chosen['cost']:.6g}"),
        ("baseline bit-ops per sample", f"{summary['baseline_bit_ops']:,.0f}"),
        ("quantizer groups", str(summary["num_groups"])),
        ("evaluations", f"{ours} (AIMET for the same: up to {reference})"),
    ]
    if summary["num_ranks"] > 1:
        rows.append(("ranks", str(summary["num_ranks"])))
    return [table((), [[name, str(value)] for name, value in rows])]


def _curve() -> list[str]:
    return [
        "{{plot curve}}",
        note("A dominated point is no better than one that costs no more."),
    ]


def _points(document: Document) -> str:
    points = document["points"]
    rows = [
        [
            cost,
            score,
            Shown(f"{point['weight_bytes']:,.0f}"),
            Shown(f"{point['activation_bytes']:,.0f}"),
            point["candidate"],
            point["group"],
        ]
        for point, cost, score in zip(
            points, _column(points, "cost"), _column(points, "score"), strict=True
        )
    ]
    classes = ["dominated" if point["dominated"] else "" for point in points]
    classes[document["chosen"]] = "chosen"
    head = ("cost", "score", "weight bytes", "activation bytes", "candidate", "group")
    return table(head, rows, classes, long=len(rows) > _LONG)


def _skipped(document: Document) -> list[str]:
    steps = document["skipped"]
    if not steps:
        return []
    rows = [
        [
            *numbers,
            step["candidate"],
            step["group"],
        ]
        for step, *numbers in zip(
            steps,
            *(_column(steps, key) for key in ("cost", "lowest", "highest")),
            strict=True,
        )
    ]
    head = ("cost", "score from", "to", "candidate", "group")
    summary = f"{len(steps)} points of the walk were not evaluated"
    return [
        f"<details><summary>{summary}</summary>",
        note("Where the score falls along the walk, theirs lie between these."),
        table(head, rows, long=len(rows) > _LONG),
        "</details>",
    ]


def _sensitivity(document: Document, plots: dict[str, Any]) -> list[str]:
    if "sensitivity" in plots:
        return ["{{plot sensitivity}}"]
    reason = document["summary"]["stop_reason"]
    return [note(f"No sensitivities were measured: {reason}.")]


def _sensitivity_table(document: Document) -> list[str]:
    items = document["sensitivities"][::-1]
    if not items:
        return []
    rows = [
        [score, Shown(f"{item['saved']:.2%}"), item["candidate"], item["group"]]
        for item, score in zip(items, _column(items, "score"), strict=True)
    ]
    head = ("score", "bit-ops saved", "candidate", "group")
    return [table(head, rows, long=len(rows) > _LONG)]


@dataclass
class _Module:
    """A module of the model's tree: its layers and modules by name, in their order; a
    module's key ends with a dot.
    """

    inside: dict[str, _Module | Document] = field(default_factory=dict)

    def put(self, path: list[str], layer: Document) -> None:
        """Hangs a layer into the tree."""
        if len(path) == 1:
            self.inside[path[0]] = layer
            return
        below = self.inside.setdefault(f"{path[0]}.", _Module())
        assert isinstance(below, _Module)
        below.put(path[1:], layer)

    def precisions(self) -> list[str]:
        """Those of all that is below."""
        found = []
        for node in self.inside.values():
            if isinstance(node, _Module):
                found += node.precisions()
            else:
                found += [after for _, after in node["precisions"].values()]
        return found

    def lines(self) -> list[str]:
        """As HTML, a mark for each quantizer."""
        lines = []
        for name, node in self.inside.items():
            if not isinstance(node, _Module):
                lines.append(_layer(name, node))
                continue
            counts = sorted(Counter(node.precisions()).items())
            summary = ", ".join(f"{precision} × {n}" for precision, n in counts)
            lines += [
                f"<details open><summary>{html.escape(name.rstrip('.'))} "
                f"<small>{summary}</small></summary>",
                *node.lines(),
                "</details>",
            ]
        return lines


def _layers(layers: list[Document]) -> list[str]:
    tree = _Module()
    for layer in layers:
        tree.put(layer["name"].replace("/", ".").strip(".").split("."), layer)
    return ['<div class="long">', *tree.lines(), "</div>"]


def _layer(name: str, layer: Document) -> str:
    marks = " ".join(bits(what, *pair) for what, pair in layer["precisions"].items())
    return (
        f'<div class="layer"><span class="name">{html.escape(name)}</span>'
        f'<span class="type">{html.escape(layer["type"])}</span>{marks}</div>'
    )


def _convert_ops(document: Document) -> list[str]:
    ops = document["convert_ops"]
    rows = [
        [
            title,
            Shown(len(ops[name]["ops"])),
            Shown(f"{sum(row[3] for row in ops[name]['ops']):,}"),
            Shown(f"{ops[name]['bytes']:,.0f}"),
        ]
        for name, title in (("walk", "phase 2's choice"), ("final", "chosen"))
    ]
    parts = [table(("setting", "convert ops", "elements", "bytes moved"), rows)]
    if document["alphas"]:
        parts.append(_alphas(document))
    left = [
        [tensor, source, target, Shown(f"{elements:,}")]
        for tensor, source, target, elements in ops["final"]["ops"]
    ]
    if left:
        head = ("tensor", "from", "to", "elements")
        parts += [
            "<details><summary>convert ops of the chosen point</summary>",
            table(head, left, long=len(left) > _LONG),
            "</details>",
        ]
    return parts


def _alphas(document: Document) -> str:
    points = document["alphas"]
    rows = [
        [
            Shown(f"{point['alpha']:.1f}"),
            score,
            Shown(f"{point['convert_cost']:,.0f}"),
            cost,
        ]
        for point, score, cost in zip(
            points, _column(points, "score"), _column(points, "cost"), strict=True
        )
    ]
    chosen = document["summary"]["chosen_alpha"]
    classes = ["chosen" if p["alpha"] == chosen else "" for p in points]
    return table(("alpha", "score", "convert cost", "bit-ops"), rows, classes)


def _time(summary: Document) -> str:
    estimated = summary["estimated_seconds"]
    rows = []
    for phase, seconds in summary["seconds"].items():
        count = summary["evaluations"].get(phase, 0)
        row = [PHASE_TITLES[phase], Shown(count)]
        row.append(Shown(summary["reference_evaluations"].get(phase, "-")))
        row.append(Shown(f"{seconds:.3g}"))
        row.append(Shown(f"{seconds / count:.3g}" if count else "-"))
        if estimated is not None:
            row.append(Shown(f"{estimated.get(phase, 0):.3g}"))
        rows.append(row)
    head = ["phase", "evaluations", "AIMET, up to", "seconds", "seconds each"]
    if estimated is not None:
        head.append("estimated seconds")
    return table(head, rows)
