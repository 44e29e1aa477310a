# SPDX-License-Identifier: BSD-3-Clause
"""Checks before an export, and several files written as one."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from aimetpp.common.files import atomic_write, is_special, replaceable


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


def require_writable_file(path: Path) -> None:
    """Makes sure that `path` is the name of a file, which need not exist.

    Raises:
        OSError: an empty path, or a folder.
    """
    if not is_special(path):
        replaceable("" if path == Path() else path)


def write_together(files: Mapping[Path, str | bytes]) -> None:
    """Writes all files, or changes none where one cannot be written.

    Each goes to a temporary file beside it first. They take their places only when all
    are on the disk; where one then cannot, those before it give theirs back. Links are
    followed; what is neither a file nor a folder (a device) is written to last.

    Raises:
        OSError: a file cannot be written, or the disk is full.
    """
    contents = {
        path if is_special(path) else replaceable(path): data
        for path, data in files.items()
    }
    special = {path for path in contents if is_special(path)}
    suffix = f"{os.getpid()}"
    paths = [path for path in contents if path not in special]
    staged = {path: path.with_name(f".{path.name}.{suffix}.staged") for path in paths}
    kept = {path: path.with_name(f".{path.name}.{suffix}.kept") for path in paths}
    replaced: list[Path] = []
    try:
        for path, temporary in staged.items():
            atomic_write(temporary, contents[path])
        for path in paths:
            if path.is_file():
                _keep(path, kept[path])
        for path, temporary in staged.items():
            os.replace(temporary, path)
            replaced.append(path)
        for path in special:
            atomic_write(path, contents[path])
    except BaseException:
        for path in replaced:
            if kept[path].exists():
                os.replace(kept[path], path)
            else:
                path.unlink()
        raise
    finally:
        for temporary in (*staged.values(), *kept.values()):
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


def _keep(path: Path, name: Path) -> None:
    """Gives a file a second name, or a copy where the file system has no links."""
    try:
        os.link(path, name)
    except OSError:
        shutil.copy2(path, name)
