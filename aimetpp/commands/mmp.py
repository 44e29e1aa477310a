# SPDX-License-Identifier: BSD-3-Clause
"""`aimetpp mmp`: precision requests from a file, applied to a user's model."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from aimetpp.common.files import empty_folders_removed, make_writable_folder


def add_mmp(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "mmp",
        help="set the precision of layers by hand, from a file of requests",
        description=(
            "Applies the precision requests of a JSON file to the simulation that a "
            "function of yours makes, prints what became of them, and writes "
            "mmp_log.txt, mmp_report.json, mmp_report.html and precision_profile.json "
            "(for sim.load_precision_profile)."
        ),
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help='"file.py:function" or "package.module:function", without arguments, '
        "which returns a QuantizationSimModel or (model, dummy_input)",
    )
    parser.add_argument(
        "requests",
        metavar="REQUESTS",
        help='JSON file: a list such as [{"layer": "conv1", "activation": "int16", '
        '"param": {"weight": "int8"}}, {"type": "Linear", ...}, '
        '{"model_input": "int8"}, {"model_output": "int16"}]',
    )
    parser.add_argument(
        "--results-dir", default="mmp_results", help="folder for all results"
    )
    parser.add_argument(
        "--profile", help="precision profile to start from, such as a search's result"
    )
    parser.add_argument(
        "--config", help="path or shipped name, where the function returns a model"
    )
    parser.add_argument(
        "--no-strict",
        action="store_true",
        help="let the latest request win instead of stopping at a conflict",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    return run_mmp(
        arguments.model,
        arguments.requests,
        arguments.results_dir,
        profile=arguments.profile,
        config_file=arguments.config,
        strict=not arguments.no_strict,
    )


def run_mmp(
    model: str,
    requests: str | os.PathLike[str],
    results_dir: str | os.PathLike[str],
    profile: str | os.PathLike[str] | None = None,
    config_file: str | None = None,
    strict: bool = True,
) -> int:
    """Applies the requests of a file, prints the report and writes it.

    Args:
        model: names the function that makes the simulation, see `load_simulation`.
        requests: JSON file, see `MixedPrecisionConfigurator.load_requests`.
        results_dir: made if missing; gets all files, or stays as it was.
        profile: precision profile that is loaded first.
        config_file: where `model` returns no simulation.
        strict: as in `MixedPrecisionConfigurator.apply`.

    Returns:
        0.

    Raises:
        ValueError: a wrong name, file or request, or requests in conflict.
        OSError: a file cannot be read or written.
    """
    from aimetpp.commands.user_code import load_simulation
    from aimetpp.export.files import write_together
    from aimetpp.mixed_precision import MixedPrecisionConfigurator

    folder = Path(results_dir)
    with empty_folders_removed(folder):
        make_writable_folder(folder)
        sim = load_simulation(model, config_file)
        if profile is not None:
            sim.load_precision_profile(profile)
        configurator = MixedPrecisionConfigurator(sim)
        configurator.load_requests(requests)
        try:
            report = configurator.apply(None, strict=strict)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        write_together(
            {
                folder / "mmp_log.txt": str(report),
                folder / "mmp_report.json": report.to_json() + "\n",
                folder / "mmp_report.html": report.to_html(),
                folder / "precision_profile.json": sim.precision_profile_text(),
            }
        )
    print(report)
    print(
        f"written to {folder}: mmp_log.txt, mmp_report.json, mmp_report.html, "
        "precision_profile.json"
    )
    return 0
