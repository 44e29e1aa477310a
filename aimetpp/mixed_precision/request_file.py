# SPDX-License-Identifier: BSD-3-Clause
"""Precision requests in a JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SUBJECTS = ("layer", "type", "model_input", "model_output")
_DETAILS = ("activation", "param")


def read_requests(
    path: str | os.PathLike[str],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The file's requests, each with its place as a report shows it.

    Yields:
        ("requests.json, entry 1", {"layer": "conv1", "activation": "int16"})

    Raises:
        OSError: the file cannot be read.
        ValueError: not JSON, not a list, or an object with other keys.
    """
    name = Path(path).name
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)} is not a JSON file: {error}") from error
    if not isinstance(entries, list):
        raise ValueError(
            f"{os.fspath(path)} must hold a list of requests, got "
            f"{type(entries).__name__}"
        )
    for number, entry in enumerate(entries, start=1):
        origin = f"{name}, entry {number}"
        problem = _problem_of(entry)
        if problem:
            raise ValueError(f"{origin}: {problem}")
        yield origin, entry


def _problem_of(entry: Any) -> str:
    """Empty for an object with the right keys."""
    if not isinstance(entry, dict):
        return f"a request must be an object, got {type(entry).__name__}"
    subjects = [key for key in entry if key in _SUBJECTS]
    if len(subjects) != 1:
        return f"one of the keys {', '.join(_SUBJECTS)} is required, got {subjects}"
    about_model = subjects[0].startswith("model_")
    unknown = [
        key
        for key in entry
        if key != subjects[0] and (about_model or key not in _DETAILS)
    ]
    if unknown:
        return f"unknown keys beside {subjects[0]!r}: {unknown}"
    if not about_model and not isinstance(entry[subjects[0]], str):
        return f"{subjects[0]!r} must be a name, got {entry[subjects[0]]!r}"
    if not about_model and all(entry.get(key) is None for key in _DETAILS):
        return f"{subjects[0]!r} needs {' or '.join(_DETAILS)}, or both"
    return ""
