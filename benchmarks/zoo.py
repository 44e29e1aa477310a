# SPDX-License-Identifier: BSD-3-Clause
"""What quantization costs the models of tests/zoo: a table of architectures with their
sites and their signal-to-quantization-noise ratios in dB, weights and activations at 8
and 16 bits, min-max ranges of the example input itself.

    PYTHONPATH=.:tests/zoo .venv/bin/python benchmarks/zoo.py [part of a name ...]
"""

from __future__ import annotations

import sys
import warnings

import torch
from architectures import ARCHITECTURES, make, run, sqnr

from aimetpp.quantsim import QuantizationSimModel


def row(name: str) -> str:
    """One line of the table."""
    model, example = make(name)
    expected = run(model, example)
    sim = QuantizationSimModel(
        model, example, default_output_bw=16, default_param_bw=16
    )
    sim.compute_encodings(lambda m: run(m, example))
    wide = sqnr(expected, run(sim.model, example))
    sim.apply_precisions(["int8"] * len(sim.precisions()))
    narrow = sqnr(expected, run(sim.model, example))
    counts = f"{len(sim.sites())} | {len(sim.precisions())}"
    return f"| {name} | {counts} | {narrow:.1f} | {wide:.1f} |"


def main(parts: list[str]) -> None:
    """Prints the rows of the architectures whose name holds one of `parts`."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| architecture | sites | quantizers | W8A8, dB | W16A16, dB |")
    print("|---|---|---|---|---|")
    for name in ARCHITECTURES:
        if not parts or any(part in name for part in parts):
            print(row(name), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
