# SPDX-License-Identifier: BSD-3-Clause
"""The examples run, on little data."""

from __future__ import annotations

import gzip
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


@pytest.fixture
def fashion_mnist(monkeypatch):
    """The module of examples/qat_fashion_mnist.py."""
    spec = importlib.util.spec_from_file_location(
        "qat_fashion_mnist", EXAMPLES / "qat_fashion_mnist.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "qat_fashion_mnist", module)
    spec.loader.exec_module(module)
    return module


def write_images(folder: Path, part: str, count: int) -> None:
    """Files of the data set's format: noise, brighter for higher classes."""
    generator = np.random.default_rng(count)
    labels = generator.integers(0, 10, count, dtype=np.uint8)
    pixels = generator.integers(0, 20, (count, 784)) + 20 * labels[:, None]
    for name, header, data in (
        ("images-idx3", bytes(16), pixels.astype(np.uint8)),
        ("labels-idx1", bytes(8), labels),
    ):
        path = folder / f"{part}-{name}-ubyte.gz"
        path.write_bytes(gzip.compress(header + data.tobytes()))


def test_fashion_mnist_trains_resumes_and_exports(
    fashion_mnist, tmp_path, monkeypatch, capsys
):
    write_images(tmp_path, "train", 160)
    write_images(tmp_path, "t10k", 40)
    results = tmp_path / "results"
    arguments = ["--data", str(tmp_path), "--results-dir", str(results)]
    arguments += ["--float-epochs", "1"]

    def run(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["qat_fashion_mnist.py", *arguments, *more])
        assert fashion_mnist.main() == 0
        return capsys.readouterr().out

    first = run("--qat-epochs", "1")
    assert "120602 parameters" in first and "QAT epoch 1: " in first
    second = run("--qat-epochs", "2", "--resume")
    assert "QAT epoch 1: " not in second and "QAT epoch 2: " in second
    names = {path.name for path in results.iterdir()}
    assert names >= {
        "float.pt",
        "qat.pt",
        "qat_accuracy.html",
        "precision_profile.json",
        "fashion_mnist.onnx",
        "fashion_mnist.encodings",
    }


def test_missing_images_are_a_sentence(fashion_mnist, tmp_path):
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        fashion_mnist.load_images(tmp_path, "train", None)
