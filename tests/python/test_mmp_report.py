# SPDX-License-Identifier: BSD-3-Clause
"""Manual mixed precision: all or nothing, the report, the simulation after it."""

from __future__ import annotations

import io
import json

import pytest
import torch
from mmp_models import Block, apply_one, changed, make_sim

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


BASE = {"request", "subject", "detail"}
QUANTIZER = {"quantizer", "sites", "module", "kind"}
ASPECT = {"layer", "module", "side", "slot"}
LEAF = {"layer", "module", "op", "inputs", "outputs", "params"}
FIELDS = {
    "requests": {"target", "source", "activation", "params", "layers"},
    "inferred": LEAF,
    "decided elsewhere": ASPECT | {"what", "precision", "quantizers", "path"},
    "fused": ASPECT | {"what", "precision"},
    "seen by others": QUANTIZER | {"what", "precision", "seen_by"},
    "realized": QUANTIZER | {"before", "after", "range"},
    "unchanged": QUANTIZER | {"precision"},
    "later request": LEAF | {"reason", "by"},
    "other layer": ASPECT
    | {"reason", "precision", "quantizer", "after", "by", "by_aspect"},
    "no effect": {"reason", "param", "precision"},
}


def test_the_json_document_says_everything_in_fields():
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("fc", "int16", {"weight": "int4", "wieght": "int4"})
    mmp.set_precision("conv3", ["int16"])
    mmp.set_precision("relu1", "int4")
    mmp.set_precision("block", "fp16", {"weight": "int16"})
    mmp.set_precision("block.conv", None, {"weight": "int4"})
    mmp.set_model_input_precision("int16")
    document = json.loads(mmp.apply(None, strict=False).to_json())
    kinds = set()
    for section in FIELDS.keys() & document.keys() | {"propagated", "overruled"}:
        assert document[section]
        for entry in document[section]:
            kind = entry.get("what") or entry.get("reason") or section
            kinds.add(kind)
            assert entry.keys() == BASE | FIELDS[kind], (section, entry)
    assert kinds == FIELDS.keys()
    assert document["version"] == 1 and document["quantizers"]["total"] == 9

    def only(section, **wanted):
        found = [
            entry
            for entry in document[section]
            if all(entry.get(key) == value for key, value in wanted.items())
        ]
        assert len(found) == 1, found
        return found[0]

    asked = only("requests", request=1)
    assert asked["target"] == "leaf" and asked["activation"] == ["int16"]
    assert asked["params"] == {"weight": "int4", "wieght": "int4"}
    assert asked["source"].startswith("test_mmp_report.py:") and asked["layers"] == 1
    assert only("requests", target="model_input")["layers"] is None
    assert only("requests", subject="block")["layers"] == 3
    left = only("inferred", layer="block.conv", request=4)
    assert left["inputs"] == left["outputs"] == {"0": "fp16"}
    assert left["params"] == {} and left["op"] == "conv2d"
    far = only("propagated", layer="fc", side="input")
    assert far["quantizers"] == ["block/add_0"] and far["slot"] == 0
    assert far["path"] == ["flat", "pool"] and far["precision"] == "int16"
    assert only("realized", quantizer="fc")["range"] == "none"
    changed_one = only("realized", quantizer="block.conv.weight")
    assert changed_one["before"] == "int8" and changed_one["after"] == "int4"
    assert changed_one["kind"] == "weight" and changed_one["module"] == "block.conv"
    assert only("overruled", reason="later request")["by"] == [5]
    lost = only("overruled", reason="other layer", layer="relu1")
    assert lost["quantizer"] == "relu1" and lost["by"] == [4]
    assert lost["precision"] == "int4" and lost["after"] == "fp16"
    assert only("overruled", reason="no effect")["param"] == "wieght"


def test_a_line_of_the_report_has_the_fields_too():
    report = apply_one(make_sim(), "fc", "int16")
    line = next(line for line in report.realized if line.subject == "fc")
    assert line.fields["sites"] == ["fc"] and str(line) == "[1] fc: int8 -> int16"


def test_one_is_counted_as_one():
    text = str(apply_one(make_sim(), torch.nn.Linear, "int16"))
    assert "1 request, 2 of 9 quantizers changed" in text
    assert "for 1 leaf call at" in text


class Chain(torch.nn.Module):
    """Forty blocks that all look alike."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.Sequential(*(Block() for _ in range(40)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


FOLDED = {"requests": 2, "inferred": 3, "propagated": 12, "realized": 6}


def test_layers_that_take_turns_are_few_rows():
    mmp = MixedPrecisionConfigurator(make_sim(Chain(), torch.randn(1, 4, 4, 4)))
    for index in range(40):
        mmp.set_precision(f"blocks.{index}.conv", "int16" if index % 2 else "int4")
    report = mmp.apply(None)
    rows = {section: report.rows(section) for section in FOLDED}
    for section, most in FOLDED.items():
        assert len(getattr(report, section)) >= 40
        assert len(rows[section]) <= most, (section, rows[section])
    realized = [row.subject for row in rows["realized"]]
    assert "blocks.{0, 2, ... 38}.relu (20 x activation)" in realized
    page = report.to_html()
    assert "blocks.{0, 2, ... 38}.relu (20 x activation)" in page
    assert "All 80 lines" in page  # and, folded away, each of them
    assert str(report).count("\n") < 60


def test_the_head_lists_every_quantizer_without_a_range():
    sim = make_sim()
    report = apply_one(sim, "fc", "int16")
    missing = sim.uncalibrated()
    assert len(missing) > len(report.changes)
    assert f": {len(missing)} quantizers: {missing[0]}, " in report.summary[-1]
