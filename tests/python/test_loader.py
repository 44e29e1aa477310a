# SPDX-License-Identifier: BSD-3-Clause
"""The check that the compiled libraries fit the running PyTorch."""

import json
from pathlib import Path

import pytest
import torch

from aimetpp import _loader


def write_build(folder: Path, torch_version: str, cuda: str) -> None:
    info = {"torch_version": torch_version, "cuda": cuda}
    (folder / "_build_info.json").write_text(json.dumps(info), encoding="utf-8")


@pytest.mark.parametrize(
    ("built_for", "built_cuda", "running", "running_cuda"),
    [
        ("2.13.0+cpu", "", "2.13.0+cpu", None),
        ("2.13.0+cpu", "", "2.13.0+cu130", "13.0"),
        ("2.13.0", "", "2.13.0+cpu", None),
        ("2.13.0+cu130", "13.0", "2.13.0+cu132", "13.2"),
    ],
)
def test_fitting_builds_pass(
    tmp_path: Path,
    built_for: str,
    built_cuda: str,
    running: str,
    running_cuda: str | None,
) -> None:
    write_build(tmp_path, built_for, built_cuda)
    _loader.check_build(tmp_path, running, running_cuda)


def test_another_torch_version_is_refused(tmp_path: Path) -> None:
    write_build(tmp_path, "2.12.1+cpu", "")
    with pytest.raises(ImportError, match=r"PyTorch 2\.12\.1\+cpu, and PyTorch 2\.13"):
        _loader.check_build(tmp_path, "2.13.0+cpu", None)


def test_cuda_build_beside_cpu_torch_is_refused(tmp_path: Path) -> None:
    write_build(tmp_path, "2.13.0+cu130", "13.0")
    with pytest.raises(ImportError, match=r"CUDA 13\.0 ops.*2\.13\.0\+cpu has no CUDA"):
        _loader.check_build(tmp_path, "2.13.0+cpu", None)


def test_cuda_build_beside_another_major_cuda_is_refused(tmp_path: Path) -> None:
    write_build(tmp_path, "2.13.0+cu130", "13.0")
    with pytest.raises(
        ImportError, match=r"CUDA 13\.0 ops.*2\.13\.0\+cu126 has CUDA 12"
    ):
        _loader.check_build(tmp_path, "2.13.0+cu126", "12.6")


def test_missing_libraries_say_how_to_build(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="make build"):
        _loader.check_build(tmp_path, "2.13.0+cpu", None)


def test_libraries_of_this_package_fit_and_load_twice() -> None:
    _loader.load()
    _loader.load()
    assert _loader.library_path().is_file()
    assert hasattr(torch.ops.aimetpp, "site")
