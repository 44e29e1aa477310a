# SPDX-License-Identifier: BSD-3-Clause
"""The HTML page of a manual mixed precision report."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from aimetpp.mixed_precision.mmp_report import SECTIONS

if TYPE_CHECKING:
    from aimetpp.mixed_precision.mmp_report import Report

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 70em;
       padding: 0 1em; color: #222; background: #fff }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin: 1.8em 0 .4em }
h2 small { font-weight: normal; color: #666 }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #ddd; padding: .25em .7em; text-align: left;
         vertical-align: top; overflow-wrap: anywhere }
th { color: #555; font-weight: 600; border-bottom: 2px solid #bbb }
td:first-child { white-space: nowrap; color: #666 }
td.container { font-weight: 600; background: #f5f6f8 }
ul { padding-left: 1.2em } summary { cursor: pointer; margin: .5em 0; color: #555 }
nav a { margin-right: 1em }
""".strip()

_MEANING = {
    "requests": "as made, in the order of the calls",
    "inferred": "what is left of each, leaf by leaf",
    "propagated": "realized at another layer's quantizer, and who else sees it",
    "realized": "quantizers that a request reached, before and after",
    "overruled": "gave way to a later request, or could not be done",
    "unchanged": "quantizers that no request reached",
}


def page_of_report(report: Report) -> str:
    """The report as one page that needs no other file."""
    links = " ".join(f'<a href="#{s}">{s.capitalize()}</a>' for s in SECTIONS)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<title>Manual mixed precision</title>",
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Manual mixed precision</h1>",
        "<ul>",
        *(f"<li>{html.escape(line)}</li>" for line in report.summary),
        "</ul>",
        f"<nav>{links}</nav>",
    ]
    for section in SECTIONS:
        parts += _section(report, section)
    parts.append("</body></html>")
    return "\n".join(parts) + "\n"


def _section(report: Report, section: str) -> list[str]:
    lines, rows = getattr(report, section), report.rows(section)
    parts = [
        f'<h2 id="{section}">{section.capitalize()} '
        f"<small>{len(lines)}: {_MEANING[section]}</small></h2>"
    ]
    if not lines:
        return [*parts, "<p>None.</p>"]
    parts += _table([_row(r.requests, r.subject, r.detail, r.depth) for r in rows])
    if len(rows) < len(lines):
        parts.append(f"<details><summary>All {len(lines)} lines</summary>")
        parts += _table(
            [_row(str(each.request or ""), each.subject, each.detail) for each in lines]
        )
        parts.append("</details>")
    return parts


def _table(rows: list[str]) -> list[str]:
    head = "<tr><th>request</th><th>of</th><th>what</th></tr>"
    return ["<table>", head, *rows, "</table>"]


def _row(requests: str, subject: str, detail: str, depth: int = 0) -> str:
    indent = f' style="padding-left:{0.7 + 1.2 * depth:.1f}em"'
    if not detail:
        return (
            f'<tr><td class="container"></td><td class="container" colspan="2"{indent}>'
            f"{html.escape(subject)}</td></tr>"
        )
    return (
        f"<tr><td>{html.escape(requests)}</td><td{indent}>{html.escape(subject)}</td>"
        f"<td>{html.escape(detail)}</td></tr>"
    )
