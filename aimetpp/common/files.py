# SPDX-License-Identifier: BSD-3-Clause
"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TextIO


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
    content = data.encode("utf-8") if isinstance(data, str) else data
    # Before links are followed: that of an open pipe leads to no path.
    if is_special(Path(path)):
        _write_through(Path(path), content)
        return
    target = replaceable(path)
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
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        if (
            isinstance(error, OSError)
            and error.errno
            and error.filename in (None, "", name)
        ):  # of a full disk, which names no file, or names the temporary one
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise
    _sync_folder(target.parent)


def replaceable(path: str | os.PathLike[str]) -> Path:
    """The file that `path` leads to, which need not exist yet.

    Raises:
        OSError: an empty path, or a folder.
    """
    if not os.fspath(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "")
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path)
        )
    return target


def _write_through(path: Path, content: bytes) -> None:
    with open(path, "wb", buffering=0) as special:
        rest = memoryview(content)
        while rest:  # a pipe may take a part
            rest = rest[special.write(rest) or 0 :]


def is_special(path: Path) -> bool:
    """True for what exists and is neither a file nor a folder: a device, a pipe."""
    return path.exists() and not (path.is_file() or path.is_dir())


def make_writable_folder(folder: Path) -> None:
    """Makes a folder, where it is missing, and makes sure that files can go there.

    Raises:
        OSError: it cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextlib.contextmanager
def empty_folders_removed(folder: Path) -> Iterator[None]:
    """Where the context ends in an error: removes `folder` and those above it that
    were not there before, as far as they are empty.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for each in missing:
                each.rmdir()
        raise


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
        _take(file, fcntl.LOCK_EX, what)
        _sign(file, f"process {os.getpid()}")
        yield


class CrewLock:
    """A lock that the processes of one crew hold together, and nobody else meanwhile.

    Args:
        path: the lock's file; made if missing, and left there.
        what: what is locked, for the error.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        self._what = what

    def __enter__(self) -> CrewLock:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take_first(self, crew: str) -> None:
        """For the first of a crew, which has a name that no other crew has.

        Raises:
            RuntimeError: somebody holds it.
        """
        _take(self._file, fcntl.LOCK_EX, self._what)
        _sign(self._file, crew)
        fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def join(self, crew: str) -> None:
        """For the others, while one of the crew holds it.

        Raises:
            RuntimeError: somebody else holds it; or the first one sees another file.
        """
        _take(self._file, fcntl.LOCK_SH, self._what)
        self._file.seek(0)
        holder = self._file.read().strip()
        if holder != crew:
            raise RuntimeError(
                f"{self._what} must be one folder that all ranks see; in the one that "
                f"this rank sees, the lock is of {holder or 'nobody'}, not of {crew}"
            )


def _take(file: TextIO, mode: int, what: str) -> None:
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise RuntimeError(
            f"{what} is in use by another run ({file.read().strip()})"
        ) from error


def _sign(file: TextIO, holder: str) -> None:
    file.truncate(0)
    file.write(f"{holder}\n")
    file.flush()


@contextlib.contextmanager
def one_writer_at_a_time(file: IO[str]) -> Iterator[None]:
    """Waits until no other process writes to an open file in such a context."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


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
