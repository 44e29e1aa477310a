# SPDX-License-Identifier: BSD-3-Clause
"""HTML around plots and tables: one page that needs no network, light or dark."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.embed import components
from bokeh.resources import INLINE

# Pixels of the tallest plot: browsers draw none of a canvas of more than 32,767, and
# screens may have two pixels for each of the page's.
TALLEST = 16_000

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --dim: #666; --line: #ddd;
        --paper: #fff; --shade: #f5f6f8 }
@media (prefers-color-scheme: dark) { :root { --ink: #d8dade; --dim: #9a9fa8;
        --line: #3a3d43; --paper: #16181c; --shade: #202329 } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 76em;
       padding: 0 1em; color: var(--ink); background: var(--paper) }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin: 2em 0 .4em }
p.note, h2 small { color: var(--dim); font-weight: normal; font-size: 14px }
nav { margin-bottom: 1em } nav a { margin-right: 1em; color: inherit }
.wide { overflow-x: auto; margin-bottom: .8em }
.long { margin: .8em 0; max-height: 34em; overflow: auto;
        border: 1px solid var(--line) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { border-bottom: 1px solid var(--line); padding: .2em .8em; text-align: left;
         white-space: nowrap }
.long th { position: sticky; top: 0; background: var(--paper) }
td.number, th.number { text-align: right }
tr.chosen { background: var(--shade); font-weight: 600 }
tr.dominated td { color: var(--dim) }
details details { margin-left: 1.3em } summary { cursor: pointer; padding: .1em 0 }
summary small { color: var(--dim) }
.layer { display: flex; flex-wrap: wrap; gap: .1em .6em; margin-left: 2.4em }
.layer .name { min-width: 11em } .layer .type { min-width: 9em; color: var(--dim) }
.bits { padding: 0 .45em; border-radius: .5em; color: #fff }
""".strip()

# Bokeh draws on canvases, which know nothing of the page's colors.
_DARK = """
(function paint() {
  if (!matchMedia("(prefers-color-scheme: dark)").matches) return;
  const ready = window.Bokeh && Bokeh.documents.length > 0;
  if (!ready) { setTimeout(paint, 30); return; }
  const ink = "#d8dade", line = "#3a3d43", paper = "#16181c";
  for (const doc of Bokeh.documents) for (const model of doc.all_models) {
    const type = model.type, looks = {};
    if (type == "Figure") Object.assign(looks, {background_fill_color: paper,
      border_fill_color: paper, outline_line_color: line});
    else if (type.endsWith("Axis")) Object.assign(looks, {axis_label_text_color: ink,
      major_label_text_color: ink, axis_line_color: line, major_tick_line_color: line,
      minor_tick_line_color: line});
    else if (type == "Title" || type == "Text") looks.text_color =
      type == "Text" ? {value: ink} : ink;
    else if (type == "Legend") Object.assign(looks, {label_text_color: ink,
      background_fill_color: paper});
    else if (type == "Grid") looks.grid_line_color = line;
    else continue;
    model.setv(looks);
  }
})();
"""

# White letters are readable on all of them. By bits; what is not here is grey.
_BIT_COLORS = {
    "int2": "#a50f15",
    "int3": "#b5301c",
    "int4": "#c2410c",
    "int6": "#9a6700",
    "int8": "#1a7f37",
    "int16": "#1f6feb",
    "fp16": "#7048b6",
    "bf16": "#7048b6",
}


def page(
    title: str, body: Sequence[str], plots: Mapping[str, Any], links: bool = False
) -> str:
    """The page.

    Args:
        title: of the page.
        body: parts of HTML; "{{plot NAME}}" stands for a plot.
        plots: Bokeh figures by name.
        links: begin with links to the parts that are headed by `heading`.
    """
    script, placed = components(dict(plots)) if plots else ("", {})
    text = "\n".join(body)
    for name, place in placed.items():
        text = text.replace(f"{{{{plot {name}}}}}", place)
    names = [part.split('"')[1] for part in body if part.startswith("<h2 id=")]
    jumps = " ".join(f'<a href="#{n}">{n.replace("-", " ")}</a>' for n in names)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            INLINE.render() if plots else "",
            f"</head><body><h1>{html.escape(title)}</h1>",
            f"<nav>{jumps}</nav>" if links else "",
            text,
            script,
            f"<script>{_DARK}</script>",
            "</body></html>\n",
        ]
    )


def heading(name: str, note: str = "") -> str:
    """Of a part of the page; `name` in lower case, without special characters."""
    key = name.lower().replace(" ", "-")
    small = f" <small>{html.escape(note)}</small>" if note else ""
    return f'<h2 id="{key}">{html.escape(name)}{small}</h2>'


def note(text: str) -> str:
    """A line of explanation."""
    return f'<p class="note">{html.escape(text)}</p>'


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    classes: Sequence[str] = (),
    long: bool = False,
) -> str:
    """A table; columns of numbers are those whose first cell is no text.

    Args:
        head: of the columns.
        rows: cells; numbers as they are to be shown, given as `Shown`.
        classes: of the rows, empty for none.
        long: in a box that scrolls.
    """
    numeric = [isinstance(cell, Shown) for cell in rows[0]] if rows else []
    top = "".join(
        _cell("th", name, bool(numeric) and numeric[index])
        for index, name in enumerate(head)
    )
    marks = [f' class="{name}"' if name else "" for name in classes] or [""] * len(rows)
    body = "".join(
        f"<tr{mark}>"
        + "".join(_cell("td", cell, isinstance(cell, Shown)) for cell in row)
        + "</tr>"
        for mark, row in zip(marks, rows, strict=True)
    )
    box = "long" if long else "wide"
    return f'<div class="{box}"><table><tr>{top}</tr>{body}</table></div>'


def _cell(tag: str, text: Any, number: bool) -> str:
    look = ' class="number"' if number else ""
    return f"<{tag}{look}>{html.escape(str(text))}</{tag}>"


class Shown(str):
    """A number as it is shown, to stand at the right of its column."""


def bits(what: str, before: str, after: str) -> str:
    """A precision as a colored mark."""
    color = _BIT_COLORS.get(after, "#6e7781")
    change = "" if before == after else f"{html.escape(before)} → "
    return (
        f"<span>{html.escape(what)} <span class=bits "
        f'style="background:{color}">{change}{html.escape(after)}</span></span>'
    )
