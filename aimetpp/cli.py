# SPDX-License-Identifier: BSD-3-Clause
"""Command line: `python -m aimetpp COMMAND ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from aimetpp.commands.amp import add_amp
from aimetpp.commands.mmp import add_mmp
from aimetpp.commands.profile import add_profile
from aimetpp.commands.report import add_report

# Adds a subcommand to the parser; its `run` default is called with the arguments
# and returns the exit status.
_AddCommand = Callable[[Any], None]


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return value


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="train a small CNN, find its mixed precision, fine-tune and export it",
        description=(
            "Trains a small CNN on scikit-learn's digits, searches its mixed "
            "precision, compares the result with uniform precisions, fine-tunes it, "
            "exports it and checks the exported files in a new process. Takes about a "
            "minute."
        ),
    )
    parser.add_argument(
        "--results-dir", default="demo_results", help="folder for all results"
    )
    parser.add_argument(
        "--allowed-drop",
        type=_share,
        default=0.01,
        help="accuracy, from 0 to 1, that the search may give away (default 0.01)",
    )
    parser.add_argument(
        "--seed", type=int, help="of the training (default: one with a clear trade-off)"
    )
    parser.add_argument(
        "--clean-start",
        action="store_true",
        help="forget the search results that an earlier run left in the folder",
    )
    parser.set_defaults(run=_run_demo)


def _run_demo(arguments: argparse.Namespace) -> int:
    from aimetpp.demo import DEFAULT_SEED, run_demo

    return run_demo(
        arguments.results_dir,
        allowed_drop=arguments.allowed_drop,
        seed=DEFAULT_SEED if arguments.seed is None else arguments.seed,
        clean_start=arguments.clean_start,
    )


_COMMANDS: tuple[_AddCommand, ...] = (
    _add_demo,
    add_amp,
    add_mmp,
    add_profile,
    add_report,
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="aimetpp", description="Mixed-precision quantization for PyTorch models."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add_command in _COMMANDS:
        add_command(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: the arguments; None: those of the process.

    Returns:
        The exit status. What a user can put right (a folder, an argument, a missing
        package) is one sentence on stderr and status 1; Ctrl-C is one, and 130.
    """
    arguments = make_parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"aimetpp: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"aimetpp: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130  # as a shell says it
