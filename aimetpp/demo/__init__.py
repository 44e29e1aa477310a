# SPDX-License-Identifier: BSD-3-Clause
"""The whole way once: train, simulate, search, compare, fine-tune, export, check."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import torch

from aimetpp._loader import library_path
from aimetpp.amp.mixed_precision_algo import EvalCallbackFactory
from aimetpp.amp.results import (
    ParetoList,
    format_pareto_table,
    format_sensitivity_table,
)
from aimetpp.common.amp.utils import AMPSearchAlgo
from aimetpp.common.defs import QuantizationDataType
from aimetpp.common.files import atomic_write
from aimetpp.demo import check
from aimetpp.demo.digits import (
    DEFAULT_SEED,
    Digits,
    accuracy,
    correct_answers,
    fine_tune,
    load_digits,
    train_float,
)
from aimetpp.demo.tables import Setting, format_comparison
from aimetpp.export.files import require_writable_folder
from aimetpp.mixed_precision import choose_mixed_precision
from aimetpp.quantization import QuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel

# (activation bits, weight bits), the widest first.
BIT_WIDTHS = ((16, 16), (8, 8), (8, 4), (4, 4))
_NUM_CALIBRATION = 512


def run_demo(
    results_dir: str | Path,
    allowed_drop: float = 0.01,
    seed: int = DEFAULT_SEED,
    clean_start: bool = False,
) -> int:
    """Runs the demo and prints what it finds.

    Args:
        results_dir: folder for everything that it writes; made if missing.
        allowed_drop: of the accuracy (0 to 1) that the search may give away.
        seed: of the training; the rest has no randomness.
        clean_start: forget the search results of an earlier run in that folder.

    Returns:
        0; or 1 where an exported file does not compute what the simulation does.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
        OSError: the folder cannot be written.
    """
    folder = Path(results_dir)
    require_writable_folder(folder)
    data = load_digits()
    with _one_thread():
        sim = _simulate(data, seed)
        result = _search(sim, data, folder, allowed_drop, clean_start)
        _compare(sim, data, result)
        _fine_tune(sim, data, seed)
        _export(sim, data, folder)
    return _check_in_new_process(folder)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A net this small is fastest, and its sums come out equal, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _say(title: str) -> None:
    print(f"\n== {title}", flush=True)


def _simulate(data: Digits, seed: int) -> QuantizationSimModel:
    _say("Training a small CNN on scikit-learn's digits")
    started = time.perf_counter()
    model = train_float(data, seed)
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"{parameters} parameters, {time.perf_counter() - started:.1f} s, accuracy "
        f"on {len(data.test_labels)} test images: {accuracy(model, data):.2%}; one "
        f"image is {data.points_per_image:.2f} points"
    )
    _say("Quantization simulation, calibrated on training images")
    images = data.train_images[:_NUM_CALIBRATION]
    sim = QuantizationSimModel(model, images[:1], config_file="default_per_tensor")
    sim.compute_encodings(lambda quantized: quantized(images))
    print(sim)
    return sim


def _search(
    sim: QuantizationSimModel,
    data: Digits,
    folder: Path,
    allowed_drop: float,
    clean_start: bool,
) -> ParetoList:
    _say(f"Automatic mixed precision, allowed accuracy drop {allowed_drop:g}")
    integer = QuantizationDataType.int
    batches = data.train_images[:_NUM_CALIBRATION].split(128)
    sensitivity = EvalCallbackFactory(list(batches)).sqnr(sim, _NUM_CALIBRATION)
    result = choose_mixed_precision(
        sim,
        data.test_images[:1],
        [((act, integer), (param, integer)) for act, param in BIT_WIDTHS],
        sensitivity,
        lambda model: accuracy(model, data),
        allowed_drop,
        folder,
        clean_start,
        lambda model: model(data.train_images[:_NUM_CALIBRATION]),
        amp_search_algo=AMPSearchAlgo.BruteForce,
    )
    print("Sensitivity: SQNR in dB with one group quantized alone")
    print(format_sensitivity_table(result))
    print("\nPareto table: bit-ops relative to A16W16, test accuracy")
    print(format_pareto_table(result))
    return result


def _compare(sim: QuantizationSimModel, data: Digits, result: ParetoList) -> None:
    """Prints the chosen point beside the same precision everywhere."""
    _say("The chosen point against the same precision everywhere")
    chosen = sim.precisions()
    kinds = [spec.kind for spec in sim.placement.quantizers]
    uniform = {
        f"A{act}W{param}": [f"int{param if kind == 'param' else act}" for kind in kinds]
        for act, param in BIT_WIDTHS
    }
    settings: dict[str, Setting] = {}
    for name, precisions in {"chosen": chosen, **uniform}.items():
        sim.apply_precisions(precisions)
        correct = correct_answers(sim.model.eval(), data)
        settings[name] = Setting(name, sim.bit_ops(), correct.numpy())
    sim.apply_precisions(chosen)
    baseline = settings[f"A{BIT_WIDTHS[0][0]}W{BIT_WIDTHS[0][1]}"].bit_ops
    print(format_comparison(settings.pop("chosen"), settings.values(), baseline))
    print(
        "The search has seen these test images too: with 597 of them, choosing and "
        "reporting on the same ones flatters the chosen point slightly."
    )


def _fine_tune(sim: QuantizationSimModel, data: Digits, seed: int) -> None:
    _say("Quantization-aware training of the chosen point")
    before = accuracy(sim.model.eval(), data)
    with sim.quantizers_off(), torch.no_grad():
        teacher = sim.model(data.train_images)
    started = time.perf_counter()
    fine_tune(sim.model, teacher, data, seed)
    after = accuracy(sim.model.eval(), data)
    print(
        f"accuracy {before:.2%} -> {after:.2%}, weights and ranges trained for "
        f"{time.perf_counter() - started:.1f} s to answer as the float model does"
    )


def _export(sim: QuantizationSimModel, data: Digits, folder: Path) -> None:
    _say(f"Export to {folder}")
    example = data.test_images[:2]
    sim.export(folder, "digits", example, dynamic_batch=True)
    sim.export_torchscript(folder / "digits.torchscript.pt", example_inputs=example)
    sim.export_torchscript(
        folder / "digits_portable.torchscript.pt", portable=True, example_inputs=example
    )
    sim.save_precision_profile(folder / "digits_precisions.json")
    with torch.no_grad():
        outputs = sim.model(data.test_images)
    outputs_site = next(s for s in sim.sites() if s.name == "fc2")
    scale = cast(QuantizeDequantize, outputs_site.quantizer).get_scale()
    assert scale is not None
    buffer = io.BytesIO()
    np.savez(
        buffer,
        images=data.test_images.numpy(),
        outputs=outputs.numpy(),
        step=scale.detach().item(),
    )
    atomic_write(folder / "simulation_outputs.npz", buffer.getvalue())
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        print(f"  {path.name:<34} {path.stat().st_size:>9} bytes")


def _check_in_new_process(folder: Path) -> int:
    _say("The exported files, run in a new process, against the simulation")
    script, library = str(Path(check.__file__)), str(library_path())
    command = [sys.executable, script, str(folder), library]
    return subprocess.run(command, check=False).returncode


__all__ = ["BIT_WIDTHS", "DEFAULT_SEED", "run_demo"]
