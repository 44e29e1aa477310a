# SPDX-License-Identifier: BSD-3-Clause
"""The picture of the quantizer groups, and a result carried to another simulation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from amp_models import Closeness, choose, images, make_sim

from aimetpp.amp.group_picture import draw_groups, group_picture, write_group_picture


def test_every_op_and_group_is_drawn(tmp_path: Path) -> None:
    sim = make_sim()
    path = tmp_path / "groups.html"
    write_group_picture(sim, path)
    page = path.read_text()
    assert "Bokeh" in page and "prefers-color-scheme: dark" in page
    assert re.search(r'<(script|link)[^>]+(src|href)="http', page) is None
    for op in sim.graph.ops:
        if op.role != "metadata":
            assert op.name in page
    for group in sim.quantizer_groups():
        assert group.name.partition("_input_quantizer")[0] in page


def test_a_deep_model_fits_a_browsers_canvas() -> None:
    def height(layers: int) -> int:
        columns = ["fill", "rim", "name", "op", "output group", "parameter group"]
        nodes = {column: ["a"] * layers for column in [*columns, "precisions"]}
        nodes |= {"x": [0.0] * layers, "y": [-float(i) for i in range(layers)]}
        lines: dict[str, list[Any]] = {"xs": [], "ys": [], "color": []}
        plot = draw_groups({"groups": 1, "nodes": nodes, "lines": lines})
        return int(plot.height)

    assert height(3) == 120 + 46 * 3
    assert height(340) < height(5000) <= 32_767 / 2


def test_colors_are_those_of_the_groups() -> None:
    sim = make_sim()
    plot = group_picture(sim)
    data = next(
        dict(renderer.data_source.data)
        for renderer in plot.renderers
        if "fill" in renderer.data_source.data
    )
    row = {name: i for i, name in enumerate(data["name"])}
    # relu, the addition and the concatenation are tied; conv2 reads relu.
    tied = {data["fill"][row[name]] for name in ("relu", "/add_0", "/cat_0")}
    assert len(tied) == 1
    assert data["rim"][row["conv2"]] in tied
    assert data["rim"][row["conv1"]] not in tied
    assert data["rim"][row["fc"]] == data["fill"][row["/mean_0"]]
    assert data["precisions"][row["fc"]] == "int16, int16"
    # What an op reads stands above it.
    assert data["y"][row["conv1"]] > data["y"][row["relu"]] > data["y"][row["conv2"]]
    places = list(zip(data["x"], data["y"], strict=True))
    assert len(set(places)) == len(places)


def test_the_report_holds_the_picture(tmp_path: Path) -> None:
    choose(make_sim(), tmp_path, pages=True)
    assert "quantizer groups" in (tmp_path / "report.html").read_text()


def test_a_profile_carries_a_result_to_another_simulation(tmp_path: Path) -> None:
    sim = make_sim()
    profile = choose(sim, tmp_path)
    drop = 0.5 * abs(profile.points[-1].score)
    result = choose(sim, tmp_path, drop, clean_start=False)
    assert 0 < result.chosen.cost < 1 and len(set(sim.precisions())) > 1
    sim.save_precision_profile(tmp_path / "profile.json")

    other = make_sim()
    other.load_precision_profile(tmp_path / "profile.json")
    assert other.precisions() == sim.precisions()
    assert torch.equal(other.model(images()), sim.model(images()))
    assert Closeness()(other.model) == result.final_score
    loss = other.model.train()(images()).square().sum()
    loss.backward()  # QAT goes on from there
    assert other.model.fc.weight.grad.abs().sum() > 0
