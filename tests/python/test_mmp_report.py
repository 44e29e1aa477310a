# SPDX-License-Identifier: BSD-3-Clause
"""Manual mixed precision: all or nothing, the report, the simulation after it."""

from __future__ import annotations

import io
import json

import pytest
import torch
from mmp_models import apply_one, changed, make_sim

from aimetpp.mixed_precision import MixedPrecisionConfigurator


def test_errors_leave_sim_and_log_as_they_were(tmp_path):
    sim = make_sim()
    log = tmp_path / "log.txt"
    log.write_text("earlier")
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("conv3", "int16")
    mmp.set_precision("relu1", "int4")
    with pytest.raises(RuntimeError, match="conflicting"):
        mmp.apply(str(log))
    assert log.read_text() == "earlier" and changed(sim) == {}
    report = mmp.apply(log, strict=False)  # the requests are still there
    assert log.read_text() == str(report)
    assert mmp.apply(None).requests == []  # and are used up now


def test_a_log_that_cannot_be_written_changes_nothing(tmp_path):
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("conv3", "int16")
    with pytest.raises(OSError):
        mmp.apply(tmp_path / "no" / "such" / "folder.txt")
    with pytest.raises(OSError):
        mmp.apply(tmp_path)
    closed = io.StringIO()
    closed.close()
    with pytest.raises(ValueError, match="closed file"):
        mmp.apply(closed)
    with pytest.raises(TypeError, match="log_file"):
        mmp.apply(3)
    assert changed(sim) == {}
    mmp.apply(None)
    assert changed(sim)["relu1"] == "int16"


def test_a_sim_that_fails_to_change_leaves_no_log(tmp_path, monkeypatch):
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("conv3", "int16")

    def fail(precisions):
        raise RuntimeError("no memory")

    monkeypatch.setattr(sim, "apply_precisions", fail)
    log = tmp_path / "log.txt"
    with pytest.raises(RuntimeError, match="no memory"):
        mmp.apply(log)
    assert not log.exists()
    log.write_text("earlier")
    with pytest.raises(RuntimeError, match="no memory"):
        mmp.apply(log)
    assert log.read_text() == "earlier"


def test_report_as_text_json_and_html():
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision(sim.model.conv3, "int16", {"weight": "int16"})
    mmp.set_precision(torch.nn.Linear, None, {"weight": "int4"})
    stream = io.StringIO()
    report = mmp.apply(stream)
    text = stream.getvalue()
    assert text == str(report)
    for title in ("Requests", "Inferred", "Propagated", "Realized", "Overruled"):
        assert f"\n{title}\n{'-' * len(title)}\n" in text
    assert "[1] conv3.weight: int8 -> int16" in text
    assert "relu1: int16 is seen too by block.conv, block/add_0" in text
    document = json.loads(report.to_json())
    assert document["strict"] is True
    assert document["requests"][1]["subject"] == "type Linear"
    assert {
        "quantizer": "block/add_0",
        "sites": ["block/add_0", "conv3", "/cat_0"],
        "before": "int8",
        "after": "int16",
        "request": 1,
        "range": "none",
    } in document["changes"]
    page = report.to_html()
    assert page.count("<table>") == 5 and "int8 -&gt; int16" in page
    assert "http" not in page


def test_the_default_log_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sim = make_sim()
    report = MixedPrecisionConfigurator(sim).apply()
    assert (tmp_path / "mmp_log.txt").read_text() == str(report)


def test_applying_again_changes_nothing():
    sim = make_sim()
    first = apply_one(sim, sim.model.block, "int16", {"weight": "int4"})
    second = apply_one(sim, sim.model.block, "int16", {"weight": "int4"})
    assert len(first.changes) == 4 and second.changes == []


def test_the_simulation_runs_at_the_new_precisions():
    sim = make_sim()
    data = torch.randn(4, 3, 8, 8)
    sim.compute_encodings(lambda model: model(data))
    reference = sim.get_original_model(sim.model)(data)

    def noise() -> float:
        return float((sim.model(data) - reference).square().mean())

    with torch.no_grad():
        at8 = noise()
        apply_one(sim, sim.model, "int16", {"weight": "int16"})
        at16 = noise()
        apply_one(sim, sim.model, "fp32", {"weight": "fp32"})
        assert at16 < at8 / 100
        assert noise() < 1e-12
