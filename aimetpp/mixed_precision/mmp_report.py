# SPDX-License-Identifier: BSD-3-Clause
"""What became of precision requests, as text, JSON and HTML."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aimetpp import _C
from aimetpp.common.text import counted, shortened

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel

SECTIONS = (
    "requests",
    "inferred",
    "propagated",
    "realized",
    "overruled",
    "unchanged",
)


# Of the JSON document; raised where a field changes its meaning or goes.
_VERSION = 1


@dataclass(frozen=True)
class ReportLine:
    """One line of a report section.

    Attributes:
        request: number of the request, counted from 1 in the order of the calls;
            None where a line belongs to no single one.
        subject: the layer, tensor or quantizer it is about.
        detail: what is said of it, as a sentence.
        fields: the same by name, as docs/mmp.md lists them for each section.
    """

    request: int | None
    subject: str
    detail: str
    fields: dict[str, Any] = field(default_factory=dict, compare=False)

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
        range: of the new precision: "calibrated" (from kept statistics or from the
            parameter), "as it was" (set by hand, loaded or trained), "none" where the
            quantizer needs calibration before it can run, "not needed" for a float or
            off.
    """

    quantizer: str
    sites: tuple[str, ...]
    before: str
    after: str
    request: int
    range: str


class Report:
    """How precision requests were understood and what they changed.

    Attributes:
        changes: list of PrecisionChange.
        num_quantizers: of the simulation, on or off.
        bit_ops_before: bit-operations of one sample before.
        bit_ops_after: and after.
        strict: as `apply` was called.
    """

    def __init__(
        self,
        sim: QuantizationSimModel,
        requests: list[_C.Request],
        resolution: _C.Resolution,
        strict: bool,
    ) -> None:
        self.strict = strict
        self.changes = _changes(sim, resolution)
        self.num_quantizers = len(resolution.precisions)
        self.bit_ops_before = resolution.bit_ops_before
        self.bit_ops_after = resolution.bit_ops_after
        self._notes = self._make_notes(sim)
        self._resolution = resolution
        self._subject = sim.graph, sim.placement, requests

    @cached_property
    def _sections(self) -> _C.ResolutionReport:
        # Not before someone looks: the decision is much less work than its report.
        return _C.report_of(*self._subject, self._resolution)

    @cached_property
    def requests(self) -> list[ReportLine]:
        """The requests as made, with the source line of each call."""
        return _lines(self._sections.requests)

    @cached_property
    def inferred(self) -> list[ReportLine]:
        """What is left of each, leaf by leaf, once later ones have spoken."""
        return _lines(self._sections.inferred)

    @cached_property
    def propagated(self) -> list[ReportLine]:
        """Precisions realized at another leaf's quantizer, along which path, and who
        else sees them.
        """
        return _lines(self._sections.propagated)

    @cached_property
    def realized(self) -> list[ReportLine]:
        """Every quantizer that a request reached, before -> after."""
        ranges = {change.quantizer: change.range for change in self.changes}
        lines = _lines(self._sections.realized)
        for line in lines:
            line.fields["range"] = ranges.get(line.fields["quantizer"])
        return lines

    @cached_property
    def overruled(self) -> list[ReportLine]:
        """What gave way to a later request, could not change anything, or leaves a
        layer without a supported kernel.
        """
        return _lines(self._sections.overruled)

    @cached_property
    def unchanged(self) -> list[ReportLine]:
        """The quantizers that no request reached, and their precision."""
        return _lines(self._sections.unchanged)

    def _make_notes(self, sim: QuantizationSimModel) -> list[str]:
        """What a user has to know of the ranges at the new precisions, and of
        quantizers that no request reaches.
        """
        kept = [c.quantizer for c in self.changes if c.range == "as it was"]
        notes = []
        for text, names in (
            (
                "Not calibrated (run sim.compute_encodings before the model)",
                sim.uncalibrated(),
            ),
            ("Set by hand, loaded or trained, so the range stays", kept),
        ):
            if names:
                count = counted(len(names), "quantizer")
                notes.append(f"{text}: {count}: {shortened(names)}")
        unplaced = [
            f"{sim.graph.site_name(site)} ({quantizer.precision})"
            for site, quantizer in sim.unplaced_quantizers().items()
        ]
        if unplaced:
            count = counted(len(unplaced), "quantizer")
            notes.append(
                "Put in by hand where the config has none, so no request reaches them: "
                f"{count}: {shortened(unplaced)}"
            )
        return notes

    def __str__(self) -> str:
        return _C.resolution_text(self._resolution, self._sections, self._notes)

    @property
    def summary(self) -> list[str]:
        """The lines at the head of the text."""
        return [*_C.summary_of(self._resolution, self._sections), *self._notes]

    def rows(self, section: str) -> list[_C.ReportRow]:
        """The rows of a section as the text shows them: grouped by container where
        there are many.

        Raises:
            ValueError: no such section.
        """
        if section not in SECTIONS:
            raise ValueError(
                f"rows: section must be one of {SECTIONS}, got {section!r}"
            )
        return _C.rows_of_section(self._sections, section)

    def to_dict(self) -> dict[str, Any]:
        """Summary, sections and changes as plain lists and dicts; docs/mmp.md lists
        what is in them.
        """
        document: dict[str, Any] = {
            "version": _VERSION,
            "strict": self.strict,
            "bit_ops": {"before": self.bit_ops_before, "after": self.bit_ops_after},
            "quantizers": {
                "total": self.num_quantizers,
                "reached": len(self._resolution.reached),
                "changed": len(self.changes),
            },
        }
        for section in SECTIONS:
            document[section] = [
                {
                    "request": line.request,
                    "subject": line.subject,
                    "detail": line.detail,
                    **line.fields,
                }
                for line in getattr(self, section)
            ]
        document["changes"] = [asdict(change) for change in self.changes]
        return document

    def to_json(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    def to_html(self) -> str:
        """One HTML page without outside resources: the summary, and a table for each
        section, grouped as in the text, with every single line folded away below.
        """
        from aimetpp.mixed_precision.mmp_page import page_of_report

        return page_of_report(self)


def _lines(lines: list[_C.ReportLine]) -> list[ReportLine]:
    return [
        ReportLine(
            line.request + 1 if line.request >= 0 else None,
            line.subject,
            line.detail,
            line.facts,
        )
        for line in lines
    ]


def _changes(
    sim: QuantizationSimModel, resolution: _C.Resolution
) -> list[PrecisionChange]:
    specs, quantizers = sim.placement.quantizers, sim.quantizers_by_index
    changes = []
    for change in resolution.changes:
        names = tuple(map(sim.graph.site_name, specs[change.quantizer].sites))
        state = "not needed"
        if change.after.startswith("int"):
            quantizer: Any = quantizers[change.quantizer]
            state = "calibrated" if quantizer.follows_statistics() else "as it was"
            if not quantizer.is_initialized():
                state = "none"
        changes.append(
            PrecisionChange(
                names[0],
                names,
                change.before,
                change.after,
                change.request + 1,
                state,
            )
        )
    return changes
