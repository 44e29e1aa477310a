# SPDX-License-Identifier: BSD-3-Clause
"""Runs scripts written for AIMET, or for AMD Quark's ONNX side, as they are.

`python -m aimetpp.compat SCRIPT [ARGUMENT ...]` runs SCRIPT with its imports from
`aimet_torch`, `aimet_torch.v1`, `aimet_torch.v2`, `aimet_onnx`,
`aimet_tensorflow.keras`, `aimet_common` and `quark.onnx` served by aimetpp.
In a program of your own, `aimetpp.compat.install()` does the same for later imports.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_ROOTS = {
    "aimet_torch": "aimetpp",
    "aimet_torch.v1": "aimetpp",
    "aimet_torch.v2": "aimetpp",
    "aimet_onnx": "aimetpp.onnx",
    "aimet_tensorflow.keras": "aimetpp.keras",
    "aimet_common": "aimetpp.common",
}


# Modules of Quark that scripts import from; aimetpp has their names in one.
_QUARK = "aimetpp.quark"
_QUARK_MODULES = (
    "quark.onnx",
    "quark.onnx.calibration",
    "quark.onnx.quant_utils",
    "quark.onnx.quantization",
    "quark.onnx.quantization.api",
    "quark.onnx.quantization.config",
    "quark.onnx.quantization.config.algorithm",
    "quark.onnx.quantization.config.config",
    "quark.onnx.quantization.config.spec",
)


def counterpart(name: str) -> str | None:
    """The module of aimetpp that stands for a module of AIMET or Quark; None for
    others.
    """
    if name in _QUARK_MODULES:
        return _QUARK
    for root in sorted(_ROOTS, key=len, reverse=True):
        if name == root or name.startswith(root + "."):
            return _ROOTS[root] + name[len(root) :]
    return None


# Packages that hold nothing else.
_EMPTY = {"aimet_tensorflow": ("aimet_tensorflow.keras",), "quark": _QUARK_MODULES}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Puts modules of aimetpp into `sys.modules` under the names of others."""

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        module = counterpart(fullname)
        if fullname in _EMPTY:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        if module is None:
            root = fullname.partition(".")[0]
            if root in _EMPTY:
                raise ModuleNotFoundError(
                    f"{fullname}: of {root}, aimetpp has only "
                    f"{', '.join(_EMPTY[root])}",
                    name=fullname,
                )
            return None
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(
                f"{fullname}: aimetpp has no module {module}", name=fullname
            )
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name in _EMPTY:
            return
        target = counterpart(name)
        assert target is not None
        if target == _QUARK:  # several modules for one, each with its own submodules
            quark = importlib.import_module(target)
            vars(module).update((key, getattr(quark, key)) for key in quark.__all__)
            return
        # The import system takes what is here over the empty module it has made.
        sys.modules[name] = importlib.import_module(target)


def install() -> None:
    """From now on imports of AIMET's and Quark's modules give those of aimetpp.

    They come before an AIMET or Quark that is installed. A module that aimetpp does
    not have is a ModuleNotFoundError that says so.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a script; the command line of `python -m aimetpp.compat`."""
    parser = argparse.ArgumentParser(
        prog="python -m aimetpp.compat",
        description="Runs a script written for AIMET or Quark with aimetpp instead.",
    )
    parser.add_argument("script", type=Path, help="the Python file")
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="what the script gets"
    )
    parsed = parser.parse_args(arguments)
    if not parsed.script.is_file():
        parser.error(f"no such file: {parsed.script}")
    install()
    sys.argv = [str(parsed.script), *parsed.arguments]
    sys.path[0] = str(parsed.script.resolve().parent)
    runpy.run_path(str(parsed.script), run_name="__main__")


if __name__ == "__main__":
    main()
