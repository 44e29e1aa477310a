# SPDX-License-Identifier: BSD-3-Clause
"""Shared definitions and whole-or-nothing files."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from aimetpp import defs
from aimetpp.common.defs import CallbackFunc, QuantizationDataType, QuantScheme
from aimetpp.common.files import atomic_write
from aimetpp.common.inference import inference
from aimetpp.common.text import (
    distinct_numbers,
    json_number,
    shortened,
    source_of_caller,
)


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


def test_atomic_write_follows_links_and_replaces_no_pipe(tmp_path):
    target, link, pipe = (tmp_path / name for name in ("target", "link", "pipe"))
    target.write_text("old")
    link.symlink_to(target)
    atomic_write(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        atomic_write(pipe, "through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_atomic_write_that_fails_leaves_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left.*a.json"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with pytest.raises(FileNotFoundError, match=f"'{tmp_path}/missing/a'"):
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


def test_shortened_names() -> None:
    assert shortened([]) == ""
    assert shortened(["a", "b"]) == "a, b"
    assert shortened(["a", "b", "c"], most=2) == "a, b, ..."


def test_numbers_that_json_does_not_have_are_strings() -> None:
    values = [0.5, math.inf, -math.inf, math.nan]
    assert [json_number(value) for value in values] == [0.5, "inf", "-inf", "nan"]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.91, 0.5, float("-inf")], ["0.910000", "0.500000", "-inf"]),
        ([0.99997, 0.99995], ["0.999970", "0.999950"]),
        ([-1e-7, -1.5e-7], ["-1.00000e-07", "-1.50000e-07"]),
        ([93.12345678, 93.12345712], ["93.1234568", "93.1234571"]),
        ([1.0, 1.0 + 2**-52], ["1.0000000000000000", "1.0000000000000002"]),
        # Not neighbours: they need not be told apart.
        ([0.12345678, 2.0, 0.12345679], ["0.123457", "2.00000", "0.123457"]),
        ([123456.0, 7654321.0], ["123456", "7.65432e+06"]),
        ([], []),
    ],
)
def test_numbers_that_differ_do_not_look_the_same(
    values: list[float], texts: list[str]
) -> None:
    assert distinct_numbers(values) == texts


def test_source_of_caller_skips_folders_and_not_names(tmp_path: Path) -> None:
    # A user's folder may be called "torch", too.
    path = tmp_path / "torch" / "user.py"
    code = "def call(f, *args):\n    return f(*args)\n"
    scope: dict[str, Any] = {}
    exec(compile(code, str(path), "exec"), scope)
    call = scope["call"]
    assert call(source_of_caller, ("/nowhere/",)) == "user.py:2"
    skipped = str(path.parent) + os.sep
    assert call(source_of_caller, (skipped,)).startswith("test_common.py:")
    assert source_of_caller(("/", "<")) == ""


def test_inference_puts_training_flags_back() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.BatchNorm1d(2))
    model[1].eval()
    with pytest.raises(KeyError), inference(model):
        assert not model.training and not model[0].training
        assert not torch.is_grad_enabled()
        raise KeyError
    assert model.training and model[0].training and not model[1].training
    assert torch.is_grad_enabled()


def test_atomic_write_to_an_open_pipe_by_the_name_of_its_descriptor() -> None:
    content = "line\n" * 50_000  # more than a pipe holds at a time
    reader = subprocess.run(
        [
            sys.executable,
            "-c",
            "from aimetpp.common.files import atomic_write\n"
            "atomic_write('/dev/stdout', 'line\\n' * 50_000)",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert reader.stdout == content


def test_atomic_write_names_the_path_that_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as of_folder:
        atomic_write("folder", "new")
    assert of_folder.value.filename == "folder"
    with pytest.raises(FileNotFoundError) as of_nothing:
        atomic_write("", "new")
    assert of_nothing.value.filename == ""
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
