# SPDX-License-Identifier: BSD-3-Clause
"""Runs a demo's exported files and says how far they agree with the simulation.

A script of its own, run in a new process: it uses onnxruntime, torch and, for the
file with the library's ops, the compiled library, but not the Python package.

Usage: check.py RESULTS_DIR LIBRARY
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np


def agreement(name: str, got: np.ndarray, want: np.ndarray, step: float) -> str:
    """One line: largest difference, in output steps too, and equal answers.

    Args:
        name: what was run.
        got: logits of the file. [N, classes]
        want: logits of the simulation. [N, classes]
        step: the simulation's output step (scale of its last quantizer).
    """
    worst = float(np.abs(got - want).max())
    same = float((np.abs(got - want) <= 0.5 * step).mean())
    argmax = float((got.argmax(1) == want.argmax(1)).mean())
    return (
        f"  {name:<46} max diff {worst:9.3g} = {worst / step:5.2f} steps, "
        f"{same:7.2%} of outputs on the same step, argmax {argmax:7.2%}"
    )


def run_onnx(path: Path, images: np.ndarray, optimized: bool) -> np.ndarray:
    """Logits of an ONNX file in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimized:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def run_torchscript(path: Path, images: np.ndarray) -> np.ndarray:
    """Logits of a TorchScript file."""
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated")
        return torch.jit.load(str(path))(torch.from_numpy(images)).numpy()


def main(folder: Path, library: Path) -> int:
    """Prints one line per file.

    Returns:
        1 if a file that is run operation by operation, as the simulation is, is off
        by more than an output step; else 0.
    """
    saved = np.load(folder / "simulation_outputs.npz")
    images, want, step = saved["images"], saved["outputs"], float(saved["step"])
    exact = {}
    exact["TorchScript, plain aten ops, without aimetpp"] = run_torchscript(
        folder / "digits_portable.torchscript.pt", images
    )
    import torch

    torch.ops.load_library(str(library))
    exact["TorchScript with libaimetpp's ops"] = run_torchscript(
        folder / "digits.torchscript.pt", images
    )
    optimized: dict[str, np.ndarray] = {}
    try:
        model = folder / "digits.onnx"
        exact["ONNX in onnxruntime, node by node"] = run_onnx(model, images, False)
        optimized["ONNX in onnxruntime, its optimizations on"] = run_onnx(
            model, images, True
        )
    except ModuleNotFoundError:
        print("  ONNX: not run, onnxruntime is not installed: pip install onnxruntime")
    for name, got in {**exact, **optimized}.items():
        print(agreement(name, got, want, step))
    if optimized:
        print(
            "  (optimized, onnxruntime computes in integers, and rounds biases to them)"
        )
    off = [n for n, got in exact.items() if np.abs(got - want).max() > 1.5 * step]
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
