# SPDX-License-Identifier: BSD-3-Clause
"""Drives the CMake build; everything else is in pyproject.toml.

CMAKE_ARGS is passed on to CMake's configure step, for example
CMAKE_ARGS="-DAIMETPP_CUDA=OFF", and CMAKE_BUILD_PARALLEL_LEVEL limits the number
of compile jobs.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def find_tool(name: str) -> str | None:
    """Returns the tool beside this Python, else the one on PATH."""
    here = str(Path(sys.executable).parent)
    return shutil.which(name, path=here) or shutil.which(name)


def stop(sentence: str) -> NoReturn:
    """Ends the build with one sentence instead of a stack trace."""
    sys.exit(f"aimetpp: {sentence}")


def check_setuptools() -> None:
    """Ends the build where setuptools cannot read our pyproject.toml.

    The one in a new virtual environment of Python 3.11 cannot, and without build
    isolation pip does not compare it with what pyproject.toml requires.
    """
    have = setuptools.__version__
    if tuple(int(part) for part in have.split(".")[:3]) < (77, 0, 3):
        stop(
            f"building needs setuptools 77.0.3 or newer, and {sys.executable} has "
            f"{have}. Install it with: pip install 'setuptools>=77.0.3,<82'"
        )


def torch_version() -> str:
    """Returns the version of the PyTorch to compile against."""
    try:
        import torch
    except ImportError:
        stop(
            "the extension is compiled against the PyTorch that you use. Install "
            "torch first, then run: pip install --no-build-isolation ."
        )
    return str(torch.__version__)


class CMakeBuild(build_ext):
    """Configures, compiles and installs the libraries into the package."""

    def run(self) -> None:
        """Runs CMake three times: configure, build, install."""
        torch = torch_version()
        if (cmake := find_tool("cmake")) is None:
            stop("CMake was not found. Install it with: pip install cmake ninja")
        tag = f"wheel-{sys.implementation.cache_tag}-{torch}"
        build_dir = ROOT / "build" / ("dev" if self.inplace else tag)
        prefix = ROOT if self.inplace else Path(self.build_lib).resolve()
        configure = [cmake, "-S", str(ROOT), "-B", str(build_dir)]
        # CMake's memory of another Python or PyTorch at the same path is wrong.
        made_for = build_dir / "made_for.txt"
        if made_for.is_file() and made_for.read_text() != sys.version + torch:
            configure += ["--fresh"]
        build_dir.mkdir(parents=True, exist_ok=True)
        made_for.write_text(sys.version + torch)
        configure += [f"-DPython3_EXECUTABLE={sys.executable}"]
        if not self.inplace:
            configure += ["-DAIMETPP_BUILD_TESTS=OFF"]
        if ninja := find_tool("ninja"):
            configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        configure += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        cpus = str(len(os.sched_getaffinity(0)))
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or cpus
        build = [cmake, "--build", str(build_dir), "--target", "_C", "-j", jobs]
        install = [cmake, "--install", str(build_dir), "--component", "python"]
        install += ["--prefix", str(prefix)]
        steps = [("configure", configure), ("build", build), ("install", install)]
        for name, command in steps:
            if subprocess.run(command, check=False).returncode != 0:
                stop(f"CMake's {name} step failed; the reason stands above.")


check_setuptools()
setup(
    ext_modules=[Extension("aimetpp._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
