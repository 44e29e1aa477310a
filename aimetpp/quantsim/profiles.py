# SPDX-License-Identifier: BSD-3-Clause
"""Precision profiles: files that carry precisions to another simulation."""

from __future__ import annotations

import json
import os
from pathlib import Path

from aimetpp.common.files import atomic_write
from aimetpp.common.text import shortened
from aimetpp.quantsim.pinning import PinningMethods
from aimetpp.quantsim.precisions import PrecisionMethods

_VERSION = 1


class ProfileMethods(PrecisionMethods, PinningMethods):
    """The part of a simulation that writes and reads precision profiles, with the
    precisions and pins that they hold.
    """

    def save_precision_profile(self, path: str | os.PathLike[str]) -> None:
        """Writes the precision of every quantizer as JSON, by the name of its first
        site, and which are pinned (`pin`), to carry a mixed-precision result to
        another simulation of the model.
        """
        atomic_write(path, self.precision_profile_text())

    def precision_profile_text(self) -> str:
        """What `save_precision_profile` writes."""
        precisions = {
            entry.label: self._bank.precision(index)
            for index, entry in enumerate(self._bank.entries)
        }
        document = {
            "version": _VERSION,
            "precisions": precisions,
            "pinned": [
                self._bank.entries[index].label for index in sorted(self._pinned)
            ],
        }
        return json.dumps(document, indent=1) + "\n"

    def load_precision_profile(self, path: str | os.PathLike[str]) -> None:
        """Applies a profile that `save_precision_profile` wrote: precisions and pins.

        Raises:
            ValueError: not a profile, or its sites are not this model's; the message
                lists the differences and nothing is changed.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            precisions = dict(document["precisions"])
            pinned = list(document.get("pinned", []))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{os.fspath(path)} is not a precision profile") from error
        if not all(isinstance(text, str) for text in (*precisions.values(), *pinned)):
            raise ValueError(
                f"{os.fspath(path)}: a precision profile has precisions and pinned "
                "quantizers as strings"
            )
        if document.get("version") != _VERSION:
            raise ValueError(
                f"{os.fspath(path)}: profile version {_VERSION} is required, "
                f"got {document.get('version')}"
            )
        labels = [entry.label for entry in self._bank.entries]
        unknown = sorted((set(precisions) | set(pinned)) - set(labels))
        missing = sorted(set(labels) - set(precisions))
        if unknown or missing:
            raise ValueError(
                f"{os.fspath(path)}: not a profile of this model; unknown quantizers: "
                f"{shortened(unknown) or 'none'}; without an entry: "
                f"{shortened(missing) or 'none'}"
            )
        with self.undone_on_error():
            self.apply_precisions([precisions[label] for label in labels])
            self.unpin()
            self.pin_quantizers(labels.index(label) for label in pinned)
