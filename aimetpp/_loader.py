# SPDX-License-Identifier: BSD-3-Clause
"""Loads the compiled libraries, after checking that they fit this PyTorch.

libaimetpp uses internals of TorchScript that change between PyTorch versions, so
it runs only with the version it was compiled against. Loading it beside another
one would end in an undefined symbol or a crash; the check gives a sentence.
"""

import json
from pathlib import Path

import torch

PACKAGE_DIR = Path(__file__).resolve().parent

_REBUILD = (
    "Rebuild it against this PyTorch: `make build` in a checkout, else "
    "`pip install --no-build-isolation --force-reinstall --no-deps .`"
)


def library_path() -> Path:
    """Returns the path of libaimetpp, the library with the ops in it.

    It can be given to `torch.ops.load_library`, in C++ too, by programs that run
    an exported TorchScript model without this package.
    """
    return PACKAGE_DIR / "libaimetpp.so"


def cmake_prefix_path() -> str:
    """Returns CMake's search path for `find_package(Torch)` and, behind it,
    `find_package(aimetpp)`, which gives C++ programs the target aimetpp::aimetpp:
    libaimetpp, with the ops that exported TorchScript files call.

    Two folders, separated as CMAKE_PREFIX_PATH wants it.
    """
    return f"{torch.utils.cmake_prefix_path};{PACKAGE_DIR}"


def check_build(package_dir: Path, torch_version: str, torch_cuda: str | None) -> None:
    """Checks that the libraries in a folder were compiled for a PyTorch.

    Args:
        package_dir: Folder with the libraries and `_build_info.json`.
        torch_version: Version of the running PyTorch, such as "2.13.0+cpu".
        torch_cuda: Its CUDA version, None for a CPU build.

    Raises:
        ImportError: The libraries are missing, were compiled against another
            version of PyTorch, or have CUDA ops while this PyTorch has no CUDA or
            another major version of it.
    """
    info_path = package_dir / "_build_info.json"
    if not info_path.is_file():
        raise ImportError(
            "aimetpp: the compiled extension is missing in "
            f"{package_dir}. Build it: `make build` in a checkout, else "
            "`pip install --no-build-isolation .` beside an installed torch"
        )
    info = json.loads(info_path.read_text(encoding="utf-8"))
    built_for, built_cuda = info["torch_version"], info["cuda"]
    # The part after "+" names the flavour (cpu, cu130), not the interface.
    if built_for.partition("+")[0] != torch_version.partition("+")[0]:
        raise ImportError(
            f"aimetpp: the extension was compiled against PyTorch {built_for}, and "
            f"PyTorch {torch_version} is running. {_REBUILD}"
        )
    # CUDA's libraries carry the major version in their names.
    major, _, _ = built_cuda.partition(".")
    if built_cuda and major != (torch_cuda or "").partition(".")[0]:
        running = f"CUDA {torch_cuda}" if torch_cuda else "no CUDA"
        raise ImportError(
            f"aimetpp: the extension was compiled with CUDA {built_cuda} ops, for "
            f"PyTorch {built_for}, and the running PyTorch {torch_version} has "
            f"{running}. {_REBUILD}"
        )


def load() -> None:
    """Loads libaimetpp, which registers `torch.ops.aimetpp`; idempotent.

    Raises:
        ImportError: See `check_build`.
    """
    check_build(PACKAGE_DIR, torch.__version__, torch.version.cuda)
    torch.ops.load_library(library_path())
