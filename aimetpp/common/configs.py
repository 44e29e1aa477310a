# SPDX-License-Identifier: BSD-3-Clause
"""Where config files are found."""

from __future__ import annotations

import os
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent.parent / "configs"


def config_aliases() -> list[str]:
    """Names of the shipped config files."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def find_config(config_file: str | os.PathLike[str] | None) -> Path:
    """A path as it is, else a shipped config's name; None is "default".

    Raises:
        FileNotFoundError: neither; the message lists the shipped names.
    """
    name = "default" if config_file is None else os.fspath(config_file)
    if os.path.isfile(name):
        return Path(name)
    if name in config_aliases():
        return _FOLDER / f"{name}.json"
    raise FileNotFoundError(
        f"config_file: no file {name!r}, and the shipped configs are "
        f"{', '.join(config_aliases())}"
    )
