# SPDX-License-Identifier: BSD-3-Clause
"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def atomic_write(path: str | os.PathLike[str], data: str | bytes) -> None:
    """Writes `data` so that a reader sees the old file or the new one, never a part.

    The data goes to a temporary file in the same folder, is flushed to the disk, and
    takes the place of `path` in one rename. Text is written as UTF-8 as it is. A link
    is followed; a device or a pipe, which no file must replace, is written to.

    Args:
        path: the file; its folder must exist.
        data: the whole content.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full; a
            file that was at `path` is untouched, and no temporary file is left.
    """
    target = Path(os.path.realpath(path))
    content = data.encode("utf-8") if isinstance(data, str) else data
    if target.exists() and not (target.is_file() or target.is_dir()):
        with open(target, "wb", buffering=0) as special:
            special.write(content)
        return
    try:
        descriptor, name = tempfile.mkstemp(
            dir=target.parent, prefix=f".{target.name}."
        )
    except OSError as error:  # names the temporary file, which nobody knows
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, _mode_for(target))
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync_folder(target.parent)


def make_writable_folder(folder: Path) -> None:
    """Makes a folder, where it is missing, and makes sure that files can go there.

    Raises:
        OSError: it cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextlib.contextmanager
def sole_user(path: Path, what: str) -> Iterator[None]:
    """Holds a lock while the context lasts; the system frees it if the process dies.

    Args:
        path: the lock's file; made if missing, and left there.
        what: what is locked, for the error.

    Raises:
        RuntimeError: another process, or another call in this one, holds it.
    """
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise RuntimeError(
                f"{what} is in use by another run (process {file.read().strip()})"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _mode_for(target: Path) -> int:
    """The permissions of the file that is replaced, or those a new file would get."""
    try:
        return target.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself durable; a no-op where folders cannot be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
