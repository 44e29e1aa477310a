# SPDX-License-Identifier: BSD-3-Clause
"""What the report shows, as plain values: the file from which it can be made again."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aimetpp import _C
from aimetpp.amp.candidates import candidate_text
from aimetpp.amp.group_picture import picture_data
from aimetpp.amp.results import (
    ParetoList,
    ParetoPoint,
    SearchSummary,
    point_candidate,
    point_name,
)
from aimetpp.amp.simulation import Simulation
from aimetpp.common.files import atomic_write
from aimetpp.common.text import json_number

FILE_NAME = "report.json"
_VERSION = 1

Document = dict[str, Any]


def report_data(
    result: ParetoList, sim: Simulation, settings: dict[str, list[str]]
) -> Document:
    """The document of a search.

    Args:
        result: of the search.
        sim: the simulation.
        settings: the precision of each quantizer at the "baseline", at phase 2's choice
            ("walk") and at the "final" one.
    """
    chosen = result.chosen or result.points[0]
    base = result.summary.baseline_cost
    return {
        "version": _VERSION,
        "summary": _summary(result.summary),
        "points": [_point(point, result) for point in result.points],
        "chosen": next(i for i, p in enumerate(result.points) if p is chosen),
        "sensitivities": [
            {
                "group": str(item.group),
                "candidate": candidate_text(item.candidate),
                "score": json_number(item.score),
                "saved": item.bit_ops_reduction / base if base else 0.0,
            }
            for item in result.sensitivities
        ],
        "skipped": [
            {
                "cost": step.cost,
                "group": str(step.group),
                "candidate": candidate_text(step.candidate),
                "lowest": json_number(step.lowest),
                "highest": json_number(step.highest),
            }
            for step in result.skipped
        ],
        "alphas": [
            {
                "alpha": point.alpha,
                "score": json_number(point.score),
                "convert_cost": point.convert_cost,
                "cost": point.cost,
                "within_budget": point.within_budget,
            }
            for point in result.alphas
        ],
        "layers": _layers(sim, settings["baseline"], settings["final"]),
        "convert_ops": {
            name: _convert_ops(sim, settings[name]) for name in ("walk", "final")
        },
        "picture": picture_data(sim),
    }


def write_report_data(folder: Path, document: Document) -> None:
    """Writes `report.json`, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    atomic_write(folder / FILE_NAME, json.dumps(document) + "\n")


def read_report_data(folder: Path) -> Document:
    """The document that `write_report_data` has written.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: the file is damaged or of another version.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; a search writes it into its results_dir"
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise ValueError(f"{path} must be a report of version {_VERSION}")
    return document


def finite(rows: Sequence[Document], key: str = "score") -> list[Document]:
    """The rows whose number can be drawn."""
    return [row for row in rows if math.isfinite(float(row[key]))]


def _summary(summary: SearchSummary) -> Document:
    return {
        "stop_reason": summary.stop_reason,
        "fp32_score": json_number(summary.fp32_score),
        "baseline_score": json_number(summary.baseline_score),
        "final_score": json_number(summary.final_score),
        "baseline_bit_ops": summary.baseline_bit_ops,
        "num_groups": summary.num_groups,
        "num_ranks": summary.num_ranks,
        "chosen_alpha": summary.chosen_alpha,
        "evaluations": summary.evaluations,
        "reference_evaluations": summary.reference_evaluations,
        "seconds": summary.seconds,
        "estimated_seconds": summary.estimated_seconds,
    }


def _point(point: ParetoPoint, result: ParetoList) -> Document:
    return {
        "cost": point.cost,
        "score": json_number(point.score),
        "group": point_name(point, result),
        "candidate": point_candidate(point, result),
        "dominated": point.dominated,
        "weight_bytes": point.weight_bytes,
        "activation_bytes": point.activation_bytes,
    }


def _layers(sim: Simulation, baseline: list[str], final: list[str]) -> list[Document]:
    """Of each op with quantizers: what it writes, and its parameters."""
    quantizer_of = sim.placement.quantizer_of_site
    layers = []
    for op in sim.graph.ops:
        sites = [site for site in op.output_sites if site >= 0]
        rows = [("output", quantizer_of[site]) for site in sites[:1]]
        rows += [
            (sim.graph.site_name(p.site).rpartition(".")[2], quantizer_of[p.site])
            for p in op.params
        ]
        shown = {
            name: [baseline[index], final[index]]
            for name, index in rows
            if index >= 0 and (baseline[index], final[index]) != ("fp32", "fp32")
        }
        if shown:
            layers.append(
                {
                    "name": op.name,
                    "type": op.onnx_type or op.kind,
                    "precisions": shown,
                }
            )
    return layers


def _convert_ops(sim: Simulation, precisions: list[str]) -> Document:
    points = _C.find_convert_points(sim.graph, sim.placement)
    rows = []
    for point in points:
        source = precisions[point.from_quantizer]
        for target in sorted({precisions[index] for index in point.to_quantizers}):
            if target != source:
                rows.append([point.tensor, source, target, point.elements])
    return {"bytes": _C.convert_cost(points, precisions, {}), "ops": rows}
