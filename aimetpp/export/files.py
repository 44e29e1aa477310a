# SPDX-License-Identifier: BSD-3-Clause
"""Checks before an export, and several files written as one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from aimetpp.common.files import atomic_write


def require_writable_folder(folder: Path) -> None:
    """Makes sure that files can be written to `folder`, which is made if missing.

    Raises:
        OSError: it cannot be made or written; the message holds its path.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            error.errno,
            f"export: the folder cannot be written ({error.strerror})",
            str(folder),
        ) from error


def write_together(files: Mapping[Path, str | bytes]) -> None:
    """Writes all files, or changes none where one cannot be written.

    Each goes to a temporary file beside it first; they take their places only when
    all are on the disk.

    Raises:
        OSError: a file cannot be written, or the disk is full.
    """
    staged = {
        path: path.with_name(f".{path.name}.{os.getpid()}.staged") for path in files
    }
    try:
        for path, content in files.items():
            atomic_write(staged[path], content)
        for path, temporary in staged.items():
            os.replace(temporary, path)
    finally:
        for temporary in staged.values():
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
