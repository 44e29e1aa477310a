# SPDX-License-Identifier: BSD-3-Clause
"""The HTML page of a manual mixed precision report."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from aimetpp.mixed_precision.mmp_report import SECTIONS

if TYPE_CHECKING:
    from aimetpp.mixed_precision.mmp_report import Report

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --faint: #5c6066;
        --line: #ddd; --band: #f3f4f7; --link: #0b57d0 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --paper: #16181c; --faint: #a0a5ad; --line: #34383f;
          --band: #22262c; --link: #8ab4f8 } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 70em;
       padding: 0 1em; color: var(--ink); background: var(--paper) }
a { color: var(--link) }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin: 1.8em 0 .4em }
h2 small { font-weight: normal; color: var(--faint) }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid var(--line); padding: .25em .7em; text-align: left;
         vertical-align: top; overflow-wrap: anywhere }
th { color: var(--faint); font-weight: 600; border-bottom-width: 2px }
td:first-child { color: var(--faint); min-width: 5em; max-width: 12em }
td.container { font-weight: 600; background: var(--band) }
ul { padding-left: 1.2em } nav a { margin-right: 1em }
summary { cursor: pointer; margin: .5em 0; color: var(--faint) }
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
