# SPDX-License-Identifier: BSD-3-Clause
"""`aimetpp profile`: where the time of one simulated forward goes."""

from __future__ import annotations

import argparse
from typing import Any


def add_profile(commands: Any) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "profile",
        help="show where the time of one simulated forward goes",
        description=(
            "Builds a model, simulates it with ranges from random data, and shows the "
            "time of one forward, per module or functional op and per quantizer, "
            "beside the forward in float."
        ),
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help='"file.py:function" or "package.module:function", without arguments, '
        "which returns the model, as in torchvision.models:resnet18",
    )
    parser.add_argument(
        "--input",
        type=_shape,
        action="append",
        required=True,
        help="sizes of an input, as in 8,3,224,224; once per input of the model",
    )
    parser.add_argument("--activation-bits", type=int, default=8)
    parser.add_argument("--param-bits", type=int, default=8)
    parser.add_argument("--config", help="config file, or the name of a shipped one")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=20, help="of each table")
    parser.set_defaults(run=_run)


def _shape(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise argparse.ArgumentTypeError(
            f"must be sizes such as 8,3,224,224, got {text!r}"
        )
    return sizes


def _run(arguments: argparse.Namespace) -> int:
    import torch

    from aimetpp.commands.user_code import load_function
    from aimetpp.profiling import profile_forward
    from aimetpp.quantsim import QuantizationSimModel

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = load_function(arguments.model)()
    if not isinstance(model, torch.nn.Module):
        raise ValueError(
            f"{arguments.model} must return a torch.nn.Module, got "
            f"{type(model).__name__}"
        )
    inputs = tuple(torch.randn(shape) for shape in arguments.input)
    sim = QuantizationSimModel(
        model.eval(),
        inputs,
        default_output_bw=arguments.activation_bits,
        default_param_bw=arguments.param_bits,
        config_file=arguments.config,
    )
    sim.compute_encodings(lambda simulated: simulated(*inputs))
    print(profile_forward(sim, repeats=arguments.repeats).report(arguments.rows))
    return 0
