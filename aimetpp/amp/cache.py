# SPDX-License-Identifier: BSD-3-Clause
"""The journal of evaluations: what a search has measured survives the process.

A text file of JSON lines. The first holds the fingerprint of everything that the
scores depend on; each other one holds a score, and a checksum of its own, and is
in the file before the search goes on, so that it outlives the process. While scores
come in, the disk has them within a second. A line that is not whole is never trusted.
"""

from __future__ import annotations

import json
import os
import time
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aimetpp.common.files import atomic_write, one_writer_at_a_time
from aimetpp.common.text import json_number

_VERSION = 2
# The part of a fingerprint that holds the plain values that metrics read, by place.
READ_VALUES = "values that metrics read"
# Seconds of work that a failure of the machine may cost: where evaluations are quick,
# to wait for the disk after each takes longer than they do.
_MOST_UNSYNCED = 1.0
Key = tuple[str, tuple[int, ...]]  # phase, assignment


def _lines(raw: bytes) -> list[str]:
    return raw.decode("utf-8", errors="replace").splitlines(keepends=True)


def _line(record: dict[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True)
    return json.dumps({**record, "crc": zlib.crc32(text.encode())}) + "\n"


def _parse(line: str) -> dict[str, Any]:
    """The record of a line.

    Raises:
        ValueError: cut short or changed.
    """
    if not line.endswith("\n"):
        raise ValueError("cut short")
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("not a record")
    crc = record.pop("crc", None)
    if crc != zlib.crc32(json.dumps(record, sort_keys=True).encode()):
        raise ValueError("checksum does not match")
    return record


class EvaluationCache:
    """Scores by (phase, assignment), in memory and in a journal.

    Args:
        folder: where `evaluations.jsonl` lies; made if missing. None: scores are
            kept in memory only.
        fingerprint: what the scores depend on, by name ("candidates"), as JSON
            values. Another fingerprint in the file means that its scores are of no
            use.
        clean_start: forget what is there.
        opened: None: open the journal. Else another process of the same search has:
            its name, and how many bytes the journal had then. What it had is read.
        rank_values: of this process, see `rank_values`.

    Attributes:
        opener: the name of the process that has opened the journal; "" for this one.
        differing: which values that tell ranks apart the metrics read in this process
            and in that one, as text; empty for none.

    Raises:
        RuntimeError: the fingerprint is another one than that of the process that has
            opened the journal.
    """

    def __init__(
        self,
        folder: Path | None,
        fingerprint: dict[str, Any],
        clean_start: bool,
        opened: tuple[str, int] | None = None,
        rank_values: Sequence[str] = (),
    ) -> None:
        self.opener, self.differing = "", ""
        self._scores: dict[Key, float] = {}
        self._in_memory = folder is None
        self._synced = time.monotonic()
        if folder is None:
            return
        self.path = folder / "evaluations.jsonl"
        self._header = {
            "version": _VERSION,
            "fingerprint": fingerprint,
            "rank values": rank_values,
        }
        # As it reads back from a file: lists for tuples, strings for keys.
        self._header = json.loads(json.dumps(self._header))
        if opened is not None:
            self._join(*opened)
            return
        folder.mkdir(parents=True, exist_ok=True)
        rewrite = True
        if self.path.exists() and not clean_start:
            rewrite = not self._load()
        if rewrite:
            self._write_all()

    def get(self, phase: str, assignment: list[int]) -> float | None:
        """The score, or None where it was never measured."""
        return self._scores.get((phase, tuple(assignment)))

    def put(self, phase: str, assignment: list[int], score: float) -> None:
        """Keeps a score; where there is a folder, it is in the file on return."""
        self.remember(phase, assignment, score)
        if self._in_memory:
            return
        try:
            self._append(_line(_record(phase, assignment, score)))
        except OSError as error:  # of a full disk, which names no file
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _append(self, line: str) -> None:
        with (
            open(self.path, "a", encoding="utf-8") as file,
            one_writer_at_a_time(file),
        ):
            file.write(line)
            file.flush()
            if time.monotonic() - self._synced > _MOST_UNSYNCED:
                os.fsync(file.fileno())
                self._synced = time.monotonic()

    def sync(self) -> None:
        """Waits until the disk has all scores."""
        if not self._in_memory:
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())

    def remember(self, phase: str, assignment: Sequence[int], score: float) -> None:
        """Keeps a score that another process has put on the disk."""
        self._scores[phase, tuple(assignment)] = score

    def size(self) -> int:
        """Bytes of the journal."""
        return self.path.stat().st_size

    def count(self, phase: str) -> int:
        """Scores of a phase."""
        return sum(key[0] == phase for key in self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def _write_all(self) -> None:
        records = [_record(p, list(a), score) for (p, a), score in self._scores.items()]
        atomic_write(self.path, "".join(map(_line, [self._header, *records])))

    def _join(self, opener: str, opened_at: int) -> None:
        self.opener = opener
        with open(self.path, "rb") as file:
            lines = _lines(file.read(opened_at))
        theirs = _parse(lines[0])
        changed = _difference(theirs, self._header)
        if changed:
            raise RuntimeError(
                f"{self.path}: every rank must search with the same model, data and "
                f"arguments; this one has other {', '.join(changed)} than the rank "
                f"that began{_values(theirs, self._header, changed)}. Give all ranks "
                "the same, or search with distributed=False"
            )
        self.differing = _values(theirs, self._header)
        for line in lines[1:]:
            self.remember(*_fields(_parse(line)))

    def _load(self) -> bool:
        """Reads the journal; False where it must be written anew."""
        lines = _lines(self.path.read_bytes())
        try:
            header = _parse(lines[0] if lines else "")
        except ValueError as error:
            self._set_aside(f"its first line is damaged ({error}); starting clean")
            return False
        changed = _difference(header, self._header)
        if changed:
            self._warn(
                f"was made with other {', '.join(changed)}; its {len(lines) - 1} "
                "scores are not used"
            )
            return False
        damaged = 0
        for line in lines[1:]:
            try:
                phase, assignment, score = _fields(_parse(line))
            except ValueError:
                damaged += 1
                continue
            self._scores[phase, assignment] = score
        if damaged:
            self._set_aside(
                f"{damaged} of its {len(lines) - 1} scores are damaged; the other "
                f"{len(self._scores)} are used"
            )
        return not damaged

    def _set_aside(self, reason: str) -> None:
        number = 1
        while (aside := self.path.with_suffix(f".damaged-{number}")).exists():
            number += 1
        os.replace(self.path, aside)
        self._warn(f"{reason}; the file was moved to {aside.name}")

    def _warn(self, message: str) -> None:
        warnings.warn(f"{self.path}: {message}", RuntimeWarning, stacklevel=2)


def _record(phase: str, assignment: list[int], score: float) -> dict[str, Any]:
    return {
        "phase": phase,
        "assignment": list(assignment),
        "score": json_number(score),
    }


def _fields(record: dict[str, Any]) -> tuple[str, tuple[int, ...], float]:
    try:
        return (
            str(record["phase"]),
            tuple(int(index) for index in record["assignment"]),
            float(record["score"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError("not a score") from error


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names of what differs between two headers."""
    if found.get("version") != expected["version"]:
        return ["cache version"]
    old, new = found.get("fingerprint"), expected["fingerprint"]
    if not isinstance(old, dict):
        return ["fingerprint"]
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    if READ_VALUES in changed:
        changed.remove(READ_VALUES)
        own = set(zip(found["rank values"], expected["rank values"], strict=False))
        pairs = _differing_values(found, expected)
        changed |= {place for place, pair in pairs.items() if pair not in own}
    return sorted(changed)


def _differing_values(
    found: dict[str, Any], expected: dict[str, Any]
) -> dict[str, tuple[str, str]]:
    """(found, expected) of the values that metrics read, by place."""
    old, new = (
        header["fingerprint"].get(READ_VALUES, {}) for header in (found, expected)
    )
    pairs = {
        place: (old.get(place, "missing"), new.get(place, "missing"))
        for place in sorted(old.keys() | new.keys())
    }
    return {place: pair for place, pair in pairs.items() if pair[0] != pair[1]}


def _values(
    theirs: dict[str, Any], mine: dict[str, Any], places: Sequence[str] | None = None
) -> str:
    """How values differ between two ranks, at these places or at all; "" for none."""
    texts = [
        f"{place} is {here} here and {there} there"
        for place, (there, here) in _differing_values(theirs, mine).items()
        if places is None or place in places
    ]
    return f" ({'; '.join(texts)})" if texts else ""
