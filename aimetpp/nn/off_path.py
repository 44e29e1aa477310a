# SPDX-License-Identifier: BSD-3-Clause
"""Errors for calls that do not fit what was traced."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from aimetpp.common.text import source_of_caller

if TYPE_CHECKING:
    from aimetpp.nn.runtime import ModuleRecord

# What stands between the user's forward and the code that looks for it.
_PACKAGE_FOLDER = Path(__file__).parent.parent
LIBRARY_FOLDERS = tuple(
    str(folder) + os.sep
    for folder in (
        Path(torch.__file__).parent,
        _PACKAGE_FOLDER / "common",
        _PACKAGE_FOLDER / "nn",
        _PACKAGE_FOLDER / "quantsim",
    )
)


def called_alone(record: ModuleRecord, calls: int) -> RuntimeError:
    """The error for a module that runs outside the model's forward, where that calls
    it several times.
    """
    return RuntimeError(
        f"module {record.name!r} was called on its own, outside the model's forward, "
        f"which calls it {calls} times: which of these calls' quantizers to use is not "
        "known. Call the whole model, and use gradient checkpointing on modules that "
        "are called once"
    )


def report_untraced(record: ModuleRecord, what: str, call: int, traced: int) -> None:
    """An error, or a warning where the user asked for it, for a call that was not
    traced: it has no quantizers.

    Args:
        record: of the calling module, or of the module called.
        what: what is called.
        call: which of its calls in this forward it is, from 0.
        traced: how many were traced.
    """
    source = ""
    if not torch.compiler.is_compiling():
        source = f" ({source_of_caller(LIBRARY_FOLDERS)})"
    message = (
        f"call {call + 1} of {what}{source} was not traced when the simulation was "
        f"built: {traced} calls were. The model took another path than with "
        "dummy_input; build the simulation with an input that takes this path, or set "
        "sim.untraced_ops = 'warn' to run such calls unquantized"
    )
    if record.untraced == "error":
        raise RuntimeError(message)
    if not record.warned:
        record.warned = True
        warnings.warn(message, RuntimeWarning, stacklevel=4)
