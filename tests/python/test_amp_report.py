# SPDX-License-Identifier: BSD-3-Clause
"""The report of a search, and the commands `aimetpp amp` and `aimetpp report`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from amp_models import A8W8, FLOAT, choose, make_sim
from bokeh.models import HoverTool

from aimetpp import cli
from aimetpp.amp.report import PAGES
from aimetpp.amp.report_page import Shown, bits, table
from aimetpp.amp.report_plots import draw_sensitivity

Found = tuple[Path, Any, Any, dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Folder, result, simulation and report.json of a search with all its parts."""
    folder, sim = tmp_path_factory.mktemp("report"), make_sim()
    narrowest = choose(make_sim(), tmp_path_factory.mktemp("profile")).points[-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "aimetpp.amp.mixed_precision_algo.export_alphas", lambda *_args: None
        )
        options = {"convert_op_reduction": True, "max_evaluations": 3}
        result = choose(sim, folder, -0.5 * narrowest.score, pages=True, **options)
    return folder, result, sim, json.loads((folder / "report.json").read_text())


def test_report_is_one_page_with_every_part(found: Found) -> None:
    folder, result, sim, _ = found
    page = (folder / "report.html").read_text()
    assert re.search(r'<(script|link)[^>]+(src|href)="http', page) is None
    parts = re.findall(r'<h2 id="([^"]+)"', page)
    assert parts == [
        "curve",
        "sensitivity",
        "layers",
        "convert-ops",
        "time",
        "groups",
    ]
    assert "prefers-color-scheme: dark" in page and "{{plot" not in page
    for group in sim.quantizer_groups():
        assert str(group) in page
    assert result.skipped and f"{len(result.skipped)} points of the walk" in page


def test_layers_show_where_the_search_began_and_ended(found: Found) -> None:
    _, _, sim, document = found
    quantizers = zip(sim.placement.quantizers, sim.precisions(), strict=True)
    now = {sim.graph.site_name(spec.sites[0]): p for spec, p in quantizers}
    shown = {layer["name"]: layer["precisions"] for layer in document["layers"]}
    assert shown["conv2"]["weight"] == ["int16", now["conv2.weight"]]
    assert shown["fc"]["output"] == ["int16", now["fc"]]
    assert {layer["name"] for layer in document["layers"]} >= {"relu", "/add_0"}


def test_layers_that_begin_in_floating_point_are_shown(tmp_path: Path) -> None:
    sim = make_sim()
    candidates = [((32, FLOAT), (32, FLOAT)), A8W8]
    choose(sim, tmp_path, candidates=candidates, exclude="conv1", pages=True)
    document = json.loads((tmp_path / "report.json").read_text())
    shown = {layer["name"]: layer["precisions"] for layer in document["layers"]}
    assert shown["conv2"]["weight"] == ["fp32", "int8"]
    assert shown["conv1"]["weight"] == ["int16", "int16"]
    assert "fp32 → int8" in (tmp_path / "report.html").read_text()


def test_hovering_shows_digits_that_differ() -> None:
    rows = [
        {"group": "a", "candidate": "A8 W8", "score": score, "saved": 0.1}
        for score in (0.99997, 0.99995, "-inf")
    ]
    plot = draw_sensitivity({"sensitivities": rows})
    (dots,) = plot.renderers
    assert dots.data_source.data["score_text"] == ["0.999970", "0.999950"]
    (hover,) = plot.select(HoverTool)
    assert ("score", "@score_text") in hover.tooltips


def test_convert_ops_are_counted_before_and_after(found: Found) -> None:
    _, result, _, document = found
    cost = {point.alpha: point.convert_cost for point in result.alphas}
    assert document["convert_ops"]["walk"]["bytes"] == cost[1.0]
    chosen = document["convert_ops"]["final"]
    assert chosen["bytes"] == cost[result.summary.chosen_alpha]
    assert bool(chosen["ops"]) == (chosen["bytes"] > 0)
    assert all(source != target for _, source, target, _ in chosen["ops"])


def test_report_is_written_again_from_its_file(
    found: Found, capsys: pytest.CaptureFixture
) -> None:
    folder, *_ = found
    before = {name: (folder / name).read_text() for name in PAGES}
    for name in PAGES:
        (folder / name).unlink()
    assert cli.main(["report", str(folder)]) == 0
    assert "report.html" in capsys.readouterr().out
    for name, text in before.items():
        # Bokeh's ids are new ones.
        ids = re.compile(r"p\d{4,}|[0-9a-f]{8}-[0-9a-f-]{27}")
        again = (folder / name).read_text()
        assert len(ids.sub("", again)) == len(ids.sub("", text))


def test_what_is_no_report_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for content, message in (
        (None, "no such file; a search writes it"),
        ("{", "is damaged"),
        ('{"version": 99}', "must be a report of version 1"),
    ):
        if content is not None:
            (tmp_path / "report.json").write_text(content)
        assert cli.main(["report", str(tmp_path)]) == 1
        assert message in capsys.readouterr().err


def test_long_names_stay_apart_on_the_axis() -> None:
    names = [f"features.{i}.{'very' * 12}.conv" for i in (1, 2)]
    rows = [
        {"group": name, "candidate": "A8 W8", "score": score, "saved": 0.1}
        for name, score in zip(names, (0.5, "-inf"), strict=True)
    ]
    rows.append(dict(rows[0], group=names[1]))
    plot = draw_sensitivity({"sensitivities": rows})
    assert len(set(plot.y_range.factors)) == 2
    assert all(len(label) <= 48 for label in plot.y_range.factors)
    assert draw_sensitivity({"sensitivities": rows[1:2]}) is None


def test_tables_escape_and_align() -> None:
    text = table(("a", "b"), [["<x>", Shown("1")]], ["chosen"])
    assert '<th>a</th><th class="number">b</th>' in text
    assert '<tr class="chosen"><td>&lt;x&gt;</td><td class="number">1</td>' in text
    assert "int16 → int8" in bits("weight", "int16", "int8")
    assert "→" not in bits("weight", "int8", "int8")
