# SPDX-License-Identifier: BSD-3-Clause
"""`aimetpp report`: the pages of a search, made again from its files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_report(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "report",
        help="write the pages of a search again",
        description=(
            "Writes report.html, pareto_curve.html and "
            "quantizer_group_sensitivity.html again from the report.json that a "
            "search has left in its results folder. Needs neither model nor data."
        ),
    )
    parser.add_argument(
        "results_dir", metavar="RESULTS_DIR", help="results folder of a search"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from aimetpp.amp.report import PAGES, rewrite_pages

    folder = Path(arguments.results_dir)
    rewrite_pages(folder)
    print(f"written to {folder}: {', '.join(PAGES)}")
    return 0
