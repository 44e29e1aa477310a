# SPDX-License-Identifier: BSD-3-Clause
"""The JSON files of a search."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aimetpp.amp.candidates import candidate_text
from aimetpp.amp.convert_ops import write_alpha_files
from aimetpp.amp.report import write_pages
from aimetpp.amp.results import ParetoList
from aimetpp.amp.simulation import Simulation
from aimetpp.common.files import atomic_write
from aimetpp.common.text import json_number


def info_list(
    result: ParetoList,
    before: Sequence[str],
    after: Sequence[str],
    kinds: Sequence[str],
) -> list[list[Any]]:
    """(name, value) pairs of `amp_info_list.json`.

    Args:
        result: of the search.
        before: precision of every searched quantizer at the baseline.
        after: the same in the final setting.
        kinds: "param" or another kind, of each of them.
    """
    summary = result.summary
    pairs: list[list[Any]] = [
        ["fp32 accuracy", json_number(result.fp32_score)],
        ["baseline candidate", candidate_text(summary.baseline_candidate)],
        ["baseline accuracy", json_number(result.baseline_score)],
        ["final score", json_number(result.final_score)],
        ["final relative bitops", result.chosen.cost if result.chosen else 1.0],
        ["stop reason", result.stop_reason],
        ["quantizer groups", summary.num_groups],
        ["Phase1 Time", summary.seconds.get("sensitivity", 0.0) / 60],
        ["Phase2 Time", summary.seconds.get("front", 0.0) / 60],
        ["phase1 eval count", summary.evaluations.get("sensitivity", 0)],
        ["phase2 eval count", summary.evaluations.get("front", 0)],
        ["phase1 eval count of AIMET", summary.reference_evaluations["sensitivity"]],
        ["phase2 eval count of AIMET", summary.reference_evaluations["front"]],
        ["points skipped", len(result.skipped)],
        ["ranks", summary.num_ranks],
    ]
    if summary.chosen_alpha is not None:
        pairs.append(["phase3 alpha", summary.chosen_alpha])
        pairs.append(["Phase3 Time", summary.seconds.get("convert", 0.0) / 60])
        pairs.append(["phase3 eval count", summary.evaluations.get("convert", 0)])
    param = [kind == "param" for kind in kinds]
    flipped = [a != b for a, b in zip(before, after, strict=True)]
    for label, wanted in (
        ("act_quantizers", [not p for p in param]),
        ("param_quantizers", param),
        ("quantizers", [True] * len(param)),
    ):
        total = sum(wanted)
        count = sum(f and w for f, w in zip(flipped, wanted, strict=True))
        pairs.append([f"percentage_{label}_flipped", 100 * count / max(total, 1)])
        pairs.append([f"count_{label}_flipped", count])
        pairs.append([f"total_{label}", total])
    return pairs


def write_json_files(folder: Path, result: ParetoList, info: list[list[Any]]) -> None:
    """Writes `pareto_list.json` and `amp_info_list.json`, each whole or not at all.

    A row of `pareto_list.json` is [relative bit-ops, score, [[kind, name], ...],
    candidate].

    Raises:
        OSError: the folder cannot be written.
    """
    rows = [
        [
            cost,
            json_number(score),
            [list(pair) for pair in group.to_list()],
            candidate_text(candidate),
        ]
        for cost, score, group, candidate in result
    ]
    atomic_write(folder / "pareto_list.json", json.dumps(rows, indent=1) + "\n")
    atomic_write(folder / "amp_info_list.json", json.dumps(info, indent=1) + "\n")


def write_results(
    folder: Path,
    result: ParetoList,
    sim: Simulation,
    searched: Sequence[int],
    settings: dict[str, list[str]],
) -> None:
    """All files of a search: tables, alphas of phase 3, pages.

    Args:
        folder: where they go.
        result: of the search.
        sim: what was searched.
        searched: indices of the quantizers that the search sets.
        settings: precision of every quantizer at the "baseline", where the "walk" has
            ended, and in the "final" setting.
    """
    quantizers = sim.placement.quantizers
    info = info_list(
        result,
        before=[settings["baseline"][index] for index in searched],
        after=[settings["final"][index] for index in searched],
        kinds=[quantizers[index].kind for index in searched],
    )
    write_json_files(folder, result, info)
    write_alpha_files(folder, result.alphas, result.summary.chosen_alpha)
    write_pages(folder, result, sim, settings)
