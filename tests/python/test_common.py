# SPDX-License-Identifier: BSD-3-Clause
"""Shared definitions and whole-or-nothing files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from aimetpp import defs
from aimetpp.common.defs import CallbackFunc, QuantizationDataType, QuantScheme
from aimetpp.common.files import atomic_write


def test_atomic_write_replaces_the_file_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    path.chmod(0o640)
    atomic_write(path, "newé\n")
    assert path.read_bytes() == "newé\n".encode()
    assert path.stat().st_mode & 0o777 == 0o640
    atomic_write(str(tmp_path / "b"), b"\x00\r\n")
    assert (tmp_path / "b").read_bytes() == b"\x00\r\n"
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o666 & ~mask


def test_atomic_write_that_fails_leaves_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "missing" / "a", "new")


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        (None, "min_max"),
        ("tf", "min_max"),
        ("min_max", "min_max"),
        ("mse", "mse"),
        (QuantScheme.post_training_tf, "min_max"),
        (QuantScheme.min_max, "min_max"),
        (QuantScheme.post_training_tf_enhanced, "tf_enhanced"),
        ("post_training_percentile", "percentile"),
        (QuantScheme.training_range_learning_with_tf_init, "min_max"),
        (QuantScheme.training_range_learning_with_tf_enhanced_init, "tf_enhanced"),
    ],
)
def test_schemes(scheme: Any, name: str) -> None:
    assert QuantScheme.parse(scheme) == name


def test_wrong_schemes_are_named() -> None:
    with pytest.raises(ValueError, match="'percentile'.*got 'max'"):
        QuantScheme.parse("max")
    with pytest.raises(TypeError, match="got int"):
        QuantScheme.parse(3)  # type: ignore[arg-type]
    assert QuantScheme.from_str("tf_enhanced") is QuantScheme.post_training_tf_enhanced
    assert QuantScheme.from_str("tf") is QuantScheme.min_max


def test_callback_func_calls_with_its_argument() -> None:
    assert CallbackFunc(lambda model, args: (model, args), 5)("m") == ("m", 5)
    assert CallbackFunc(lambda model, args: (model, args))("m") == ("m", None)
    assert CallbackFunc(lambda model: model)("m") == "m"
    assert CallbackFunc(lambda model, size=3: size)("m") == 3
    with pytest.raises(TypeError, match="func must be callable, got int"):
        CallbackFunc(3)  # type: ignore[arg-type]


def test_short_path_has_the_same_names() -> None:
    assert defs.QuantizationDataType is QuantizationDataType
    assert QuantizationDataType["float"].value == 2
