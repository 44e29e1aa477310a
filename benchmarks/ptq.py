# SPDX-License-Identifier: BSD-3-Clause
"""What post-training techniques gain on a small MobileNet for scikit-learn's digits:
the figures of docs/ptq.md.

    PYTHONPATH=.:tests/python python benchmarks/ptq.py [--float-biases] [--bits 3 4 6]
                                                       [--techniques nearest SeqMSE]

Accuracy and SQNR of the simulation on 597 test images, with 8-bit activations, minimum
and maximum as ranges and 512 training images where a technique takes samples; CPU
seconds of one thread, folding, technique and calibration.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ptq_models import digits, simulated, sqnr, trained_digits

from aimetpp.adaround import Adaround, AdaroundParameters
from aimetpp.batch_norm_fold import fold_all_batch_norms
from aimetpp.bias_correction import correct_bias, find_all_conv_bn_with_activation
from aimetpp.bn_reestimation import reestimate_bn_stats
from aimetpp.cross_layer_equalization import equalize_model
from aimetpp.demo.digits import accuracy
from aimetpp.quantsim import QuantizationSimModel, QuantParams
from aimetpp.seq_mse import apply_seq_mse

SHAPE = (1, 1, 8, 8)
BATCH, SAMPLES = 64, 512
CONFIGS = {"per channel": "default", "per tensor": "default_per_tensor"}
Options = dict[str, Any]  # of a simulation


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Training images and labels, for techniques that take samples."""
    data = digits()
    parts = [slice(i, i + BATCH) for i in range(0, SAMPLES, BATCH)]
    return [(data.train_images[p], data.train_labels[p]) for p in parts]


def calibrate(sim: QuantizationSimModel) -> QuantizationSimModel:
    """The simulation, with ranges of what training images give."""
    sim.compute_encodings(lambda m: m(digits().train_images[:256]))
    return sim


def folded() -> torch.nn.Module:
    """The trained net, its batch norms folded."""
    model = trained_digits()
    fold_all_batch_norms(model, SHAPE)
    return model


def nearest(options: Options) -> QuantizationSimModel:
    """Every weight rounded to the nearest integer."""
    return simulated(folded(), **options)


def equalized(options: Options) -> QuantizationSimModel:
    """Behind cross-layer equalization."""
    model = trained_digits()
    equalize_model(model, SHAPE)
    return simulated(model, **options)


def corrected(options: Options, analytic: bool) -> QuantizationSimModel:
    """With corrected biases; analytic: from the statistics of batch norms."""
    model = trained_digits()
    known = find_all_conv_bn_with_activation(model, SHAPE)
    fold_all_batch_norms(model, SHAPE)
    params = QuantParams(
        weight_bw=options["default_param_bw"],
        act_bw=8,
        quant_scheme="min_max",
        config_file=options["config_file"],
    )
    correct_bias(model, params, SAMPLES, batches(), SAMPLES, known, not analytic)
    return simulated(model, **options)


def rounded(options: Options, steps: int) -> QuantizationSimModel:
    """Behind AdaRound with so many steps a layer."""
    example = digits().train_images[:1]
    params = AdaroundParameters(batches(), SAMPLES // BATCH, steps)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model = Adaround.apply_adaround(
            folded(),
            example,
            params,
            folder,
            "digits",
            default_param_bw=options["default_param_bw"],
            default_quant_scheme="min_max",
            default_config_file=options["config_file"],
        )
        sim = QuantizationSimModel(model, example, **options)
        sim.set_and_freeze_param_encodings(Path(folder) / "digits.encodings")
    return calibrate(sim)


def searched(options: Options) -> QuantizationSimModel:
    """With the ranges of weights that SeqMSE finds."""
    sim = QuantizationSimModel(folded(), digits().train_images[:1], **options)
    apply_seq_mse(sim, batches())
    return calibrate(sim)


def reestimated(options: Options) -> QuantizationSimModel:
    """With its batch norms, on statistics of the quantized weights."""
    sim = simulated(trained_digits(), **options)
    reestimate_bn_stats(sim.model, batches())
    return calibrate(sim)


TECHNIQUES: dict[str, Callable[[Options], QuantizationSimModel]] = {
    "nearest": nearest,
    "equalized": equalized,
    "biases, measured means": functools.partial(corrected, analytic=False),
    "biases, from batch norms": functools.partial(corrected, analytic=True),
    "AdaRound, 300 steps": functools.partial(rounded, steps=300),
    "AdaRound, 500 steps": functools.partial(rounded, steps=500),
    "AdaRound, 2000 steps": functools.partial(rounded, steps=2000),
    "SeqMSE": searched,
    "batch norms re-estimated": reestimated,
}


def row(name: str, ranges: str, bits: int, float_biases: bool) -> str:
    """One line of the table."""
    options = {
        "default_param_bw": bits,
        "config_file": CONFIGS[ranges],
        "int32_bias": not float_biases,
    }
    start = time.process_time()
    sim = TECHNIQUES[name](options)
    seconds = time.process_time() - start
    score = 100 * accuracy(sim.model, digits())
    return (
        f"| {bits} bits, {ranges} | {name} | {score:.1f} % | "
        f"{sqnr(trained_digits(), sim.model):.1f} dB | {seconds:.1f} |"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--float-biases", action="store_true")
    parser.add_argument("--bits", type=int, nargs="+", default=[3, 4, 6])
    parser.add_argument(
        "--techniques", nargs="+", choices=TECHNIQUES, default=list(TECHNIQUES)
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"float: {100 * accuracy(trained_digits(), digits()):.1f} %")
    print(
        "| weights | technique | accuracy | SQNR | CPU seconds |\n|---|---|---|---|---|"
    )
    for ranges in CONFIGS:
        for bits in arguments.bits:
            for name in arguments.techniques:
                print(row(name, ranges, bits, arguments.float_biases), flush=True)


if __name__ == "__main__":
    main()
