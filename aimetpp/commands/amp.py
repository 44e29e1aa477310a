# SPDX-License-Identifier: BSD-3-Clause
"""`aimetpp amp`: a search over a user's model, and what it will take."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimetpp.common.amp.utils import AMPSearchAlgo

if TYPE_CHECKING:
    from aimetpp.amp.mixed_precision_algo import GreedyMixedPrecisionAlgo
    from aimetpp.quantsim import QuantizationSimModel


def add_amp(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "amp",
        help="find out how many bits each part of a model needs",
        description=(
            "Searches the mixed precision of the simulation that a function of yours "
            "makes, scored by another one, prints the curve, and writes it, a report "
            "and precision_profile.json (for sim.load_precision_profile). Functions "
            'are named as "file.py:function" or "package.module:function". A run that '
            "was stopped goes on where it was. Under torchrun the ranks share the work."
        ),
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a function without arguments that returns a QuantizationSimModel or "
        "(model, dummy_input)",
    )
    parser.add_argument(
        "evaluate",
        metavar="EVALUATE",
        help="a function of the model that returns its score, higher is better",
    )
    parser.add_argument(
        "--candidates",
        type=_candidate,
        nargs="+",
        required=True,
        metavar="A/W",
        help="precisions of activations and weights, as in 16/16 8/8 8/4 fp16/fp16",
    )
    parser.add_argument(
        "--sensitivity", metavar="FUNCTION", help="scores phase 1 (default: EVALUATE)"
    )
    parser.add_argument(
        "--calibrate",
        metavar="FUNCTION",
        help="a function of the model that runs some batches, where the simulation "
        "is not calibrated",
    )
    parser.add_argument(
        "--allowed-drop",
        type=_drop,
        help="of the score that EVALUATE gives full precision (default: none, the "
        "whole curve)",
    )
    parser.add_argument(
        "--algorithm", choices=[algo.name for algo in AMPSearchAlgo], default="Binary"
    )
    parser.add_argument(
        "--max-evaluations", type=int, help="most points of the curve to evaluate"
    )
    parser.add_argument(
        "--convert-ops",
        action="store_true",
        help="then look for settings with fewer convert ops",
    )
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="only say how many evaluations, minutes and bytes it will take",
    )
    parser.add_argument(
        "--results-dir", default="amp_results", help="folder for all results"
    )
    parser.add_argument(
        "--clean-start", action="store_true", help="forget what an earlier run left"
    )
    parser.add_argument(
        "--config", help="path or shipped name, where MODEL returns a model"
    )
    parser.set_defaults(run=_run)


def _candidate(text: str) -> tuple[str, str]:
    from aimetpp.common.precision import precision_name

    halves = text.split("/")
    if len(halves) != 2:
        raise argparse.ArgumentTypeError(
            f"must be activations/weights such as 8/4, got {text!r}"
        )
    try:
        names = [
            precision_name(f"int{half}" if half.isdigit() else half, repr(text))
            for half in halves
        ]
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return names[0], names[1]


def _drop(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"must be a number from 0, got {text!r}")
    return value


def _run(arguments: argparse.Namespace) -> int:
    from aimetpp.amp.results import format_alpha_table, format_pareto_table
    from aimetpp.common.shared_work import process_group_size

    sim, algo = _load(arguments)
    folder = Path(arguments.results_dir)
    question = arguments.allowed_drop, AMPSearchAlgo[arguments.algorithm]
    try:
        if arguments.estimate:
            print(algo.estimate(*question))
            return 0
        result = algo.run(*question)
    except RuntimeError as error:  # a score that is NaN, a folder in use
        raise ValueError(str(error)) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped; the same command goes on with the scores in {folder}"
            + (", without --clean-start" if arguments.clean_start else "")
        ) from None
    if process_group_size() > 1 and os.environ.get("RANK", "0") != "0":
        return 0  # all ranks have the same result
    print(format_pareto_table(result))
    if result.alphas:
        print(format_alpha_table(result))
    sim.save_precision_profile(folder / "precision_profile.json")
    print(f"written to {folder}: report.html, precision_profile.json and others")
    return 0


def _load(
    arguments: argparse.Namespace,
) -> tuple[QuantizationSimModel, GreedyMixedPrecisionAlgo]:
    from aimetpp.amp.mixed_precision_algo import GreedyMixedPrecisionAlgo
    from aimetpp.commands.user_code import load_function_of_model, load_simulation

    sim = load_simulation(arguments.model, arguments.config)
    evaluate = load_function_of_model(arguments.evaluate)
    sensitivity = evaluate
    if arguments.sensitivity is not None:
        sensitivity = load_function_of_model(arguments.sensitivity)
    calibrate = arguments.calibrate and load_function_of_model(arguments.calibrate)
    try:
        algo = GreedyMixedPrecisionAlgo(
            sim,
            None,
            arguments.candidates,
            sensitivity,
            evaluate,
            arguments.results_dir,
            arguments.clean_start,
            calibrate,
            convert_op_reduction=arguments.convert_ops,
            max_evaluations=arguments.max_evaluations,
        )
    except RuntimeError as error:  # not calibrated
        raise ValueError(f"{error} (--calibrate FUNCTION)") from error
    return sim, algo
