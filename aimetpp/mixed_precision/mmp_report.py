# SPDX-License-Identifier: BSD-3-Clause
"""What became of precision requests, as text, JSON and HTML."""

from __future__ import annotations

import html
import json
from dataclasses import asdict, dataclass
from typing import Any

from aimetpp import _C

_SECTIONS = ("requests", "inferred", "propagated", "realized", "overruled")


@dataclass(frozen=True)
class ReportLine:
    """One line of a report section.

    Attributes:
        request: number of the request, counted from 1 in the order of the calls;
            None where a line belongs to no single one.
        subject: the layer, tensor or quantizer it is about.
        detail: what is said of it.
    """

    request: int | None
    subject: str
    detail: str

    def __str__(self) -> str:
        number = "-" if self.request is None else self.request
        return f"[{number}] {self.subject}: {self.detail}"


@dataclass(frozen=True)
class PrecisionChange:
    """A quantizer whose precision changed.

    Attributes:
        quantizer: name of its first site.
        sites: names of all its sites; more than one where tensors are tied.
        before: precision before; "fp32" where it was off.
        after: precision after.
        request: number of the request that decided, counted from 1.
    """

    quantizer: str
    sites: tuple[str, ...]
    before: str
    after: str
    request: int


class Report:
    """How precision requests were understood and what they changed.

    Attributes:
        requests: the requests as made, with the source line of each call.
        inferred: what is left of each, leaf by leaf, once later ones have spoken.
        propagated: precisions realized at another leaf's quantizer, along which
            path, and who else sees them.
        realized: every quantizer that a request reached, before -> after.
        overruled: what gave way to a later request, could not change anything, or
            leaves a layer without a supported kernel.
        changes: list of PrecisionChange.
    """

    def __init__(self, sim: Any, resolution: _C.Resolution, strict: bool) -> None:
        self.strict = strict
        self.requests = _lines(resolution.requests)
        self.inferred = _lines(resolution.inferred)
        self.propagated = _lines(resolution.propagated)
        self.realized = _lines(resolution.realized)
        self.overruled = _lines(resolution.overruled)
        self.changes = [_change(sim, change) for change in resolution.changes]
        self._text: str = _C.resolution_text(resolution)

    def __str__(self) -> str:
        return self._text

    def to_dict(self) -> dict[str, Any]:
        """Sections and changes as plain lists and dicts."""
        document: dict[str, Any] = {"strict": self.strict}
        for section in _SECTIONS:
            document[section] = [asdict(line) for line in getattr(self, section)]
        document["changes"] = [asdict(change) for change in self.changes]
        return document

    def to_json(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    def to_html(self) -> str:
        """One HTML page without outside resources: a table per section."""
        parts = [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            "<title>Manual mixed precision</title>",
            "<style>body{font-family:sans-serif;margin:2em}table{border-collapse:"
            "collapse}td,th{border:1px solid #bbb;padding:.2em .6em;text-align:left}"
            "</style></head><body>",
            "<h1>Manual mixed precision</h1>",
            f"<p>{len(self.requests)} requests, {len(self.changes)} quantizers "
            f"changed, {len(self.overruled)} overruled.</p>",
        ]
        for section in _SECTIONS:
            parts.append(f"<h2>{section.capitalize()}</h2>")
            parts.append(
                "<table><tr><th>request</th><th>subject</th><th>detail</th></tr>"
            )
            parts += [_row(line) for line in getattr(self, section)]
            parts.append("</table>")
        parts.append("</body></html>")
        return "\n".join(parts) + "\n"


def _lines(lines: list[_C.ReportLine]) -> list[ReportLine]:
    return [
        ReportLine(
            line.request + 1 if line.request >= 0 else None, line.subject, line.detail
        )
        for line in lines
    ]


def _change(sim: Any, change: _C.Change) -> PrecisionChange:
    sites = sim.placement.quantizers[change.quantizer].sites
    names = tuple(sim.graph.site_name(site) for site in sites)
    return PrecisionChange(
        names[0], names, change.before, change.after, change.request + 1
    )


def _row(line: ReportLine) -> str:
    number = "" if line.request is None else str(line.request)
    cells = (number, line.subject, line.detail)
    return "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>"
