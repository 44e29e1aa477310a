# SPDX-License-Identifier: BSD-3-Clause
"""`aimetpp profile`: where the time of one simulated forward goes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel


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
        "which returns the model, as in torchvision.models:resnet18, or (model, "
        "dummy_input), or a calibrated QuantizationSimModel",
    )
    parser.add_argument(
        "--input",
        type=_shape,
        action="append",
        help="sizes of an input of random numbers, as in 8,3,224,224; once per input "
        "of the model; only where the function returns the model alone",
    )
    parser.add_argument("--activation-bits", type=int, help="default: 8")
    parser.add_argument("--param-bits", type=int, help="default: 8")
    parser.add_argument("--config", help="config file, or the name of a shipped one")
    parser.add_argument(
        "--threads", type=_positive, help="CPU threads (default: PyTorch's)"
    )
    parser.add_argument(
        "--repeats", type=_positive, default=5, help="forwards measured (default: 5)"
    )
    parser.add_argument(
        "--rows", type=_positive, default=20, help="of each table (default: 20)"
    )
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


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return number


def _run(arguments: argparse.Namespace) -> int:
    import torch

    from aimetpp.profiling import profile_forward

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    profile = profile_forward(_simulation(arguments), repeats=arguments.repeats)
    print(profile.report(arguments.rows))
    return 0


def _simulation(arguments: argparse.Namespace) -> QuantizationSimModel:
    import torch

    from aimetpp.commands.user_code import call_function, simulate
    from aimetpp.quantsim import QuantizationSimModel
    from aimetpp.quantsim.tracing import split_dummy_input

    name = arguments.model
    made = call_function(name)
    is_model = isinstance(made, torch.nn.Module)
    if is_model:
        if arguments.input is None:
            raise ValueError(
                f"{name} returns a model: give the sizes of its inputs as --input, or "
                "return (model, dummy_input)"
            )
        made = made, tuple(torch.randn(shape) for shape in arguments.input)
    is_pair = (
        isinstance(made, tuple)
        and len(made) == 2
        and isinstance(made[0], torch.nn.Module)
    )
    if not is_pair and not isinstance(made, QuantizationSimModel):
        raise ValueError(
            f"{name} must return a torch.nn.Module, (model, dummy_input) or a "
            f"QuantizationSimModel, got {type(made).__name__}"
        )
    if arguments.input is not None and not is_model:
        raise ValueError(
            "--input is for a function that returns a model alone; "
            f"{name} returns {type(made).__name__}"
        )
    if isinstance(made, QuantizationSimModel):
        return _checked(name, made, arguments)
    model, dummy_input = made
    widths = arguments.activation_bits, arguments.param_bits
    output_bw, param_bw = (8 if width is None else width for width in widths)
    sim = simulate(
        name,
        model,
        dummy_input,
        default_output_bw=output_bw,
        default_param_bw=param_bw,
        config_file=arguments.config,
    )
    args, kwargs = split_dummy_input(sim.dummy_input)
    sim.compute_encodings(lambda simulated: simulated(*args, **kwargs))
    return sim


def _checked(
    name: str, sim: QuantizationSimModel, arguments: argparse.Namespace
) -> QuantizationSimModel:
    """A simulation that the user's function made."""
    for option in ("activation_bits", "param_bits", "config"):
        if getattr(arguments, option) is not None:
            raise ValueError(
                f"--{option.replace('_', '-')} is for a model; {name} returns a "
                "simulation, which has its own"
            )
    for _, quantizer in sim.named_quantizers():
        if not quantizer.is_initialized():
            raise ValueError(
                f"{name} must return a calibrated simulation, but the quantizer "
                f"{quantizer.label!r} has no range yet"
            )
    return sim
