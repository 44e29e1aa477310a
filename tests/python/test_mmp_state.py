# SPDX-License-Identifier: BSD-3-Clause
"""Manual mixed precision and the simulation's state: undoing, pins, profiles."""

from __future__ import annotations

import json

import pytest
import torch
from mmp_models import apply_one, changed, make_sim

from aimetpp.mixed_precision import MixedPrecisionConfigurator

DATA = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def calibrated():
    sim = make_sim()
    sim.compute_encodings(lambda model: model(DATA))
    return sim


def ranges(sim):
    return [
        (q.precision, q.get_min().tolist(), q.get_max().tolist())
        for q in sim.quantizers_by_index
    ]


def test_a_failed_apply_takes_ranges_set_by_hand_back_too():
    class Full:
        def write(self, text):
            raise OSError("no space left")

    sim = calibrated()
    sim.model.relu1.output_quantizers[0].set_range(0.0, 1.25)
    before, outputs = ranges(sim), sim.model(DATA)
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision(sim.model, "int4", {"weight": "int4"})
    mmp.set_precision("block", "fp16", {"weight": "fp32"})
    with pytest.raises(OSError, match="no space"):
        mmp.apply(Full())
    assert ranges(sim) == before and sim.pinned_sites() == []
    assert torch.equal(sim.model(DATA), outputs)
    mmp.apply(None)  # the requests were kept
    assert changed(sim)["conv1.weight"] == "int4"


def test_requests_pin_what_they_reach():
    sim = make_sim()
    apply_one(sim, "conv3", "int16", {"weight": "int8"})
    assert sim.pinned_sites() == [
        "relu1",
        "block/add_0",
        "conv3.weight",
        "conv3",
        "/cat_0",
    ]
    sim.unpin(["relu1", "/cat_0"])  # the tie's quantizer is one
    assert sim.pinned_sites() == ["conv3.weight"]
    sim.pin(["fc", next(s for s in sim.sites() if s.name == "fc.weight")])
    assert sim.pinned_sites() == ["conv3.weight", "fc.weight", "fc"]
    with pytest.raises(ValueError, match="no quantizer stands at nothing, flat"):
        sim.pin(["fc", "nothing", "flat"])
    with pytest.raises(ValueError, match="unpin: no quantizer stands at flat"):
        sim.unpin("flat")
    sim.unpin()
    assert sim.pinned_sites() == []


def test_a_profile_carries_precisions_and_pins(tmp_path):
    sim = calibrated()
    apply_one(sim, "conv3", "int16", {"weight": "int4"})
    path = tmp_path / "profile.json"
    sim.save_precision_profile(path)
    other = calibrated()
    apply_one(other, "fc", "bf16")
    other.load_precision_profile(path)
    assert other.precisions() == sim.precisions()
    assert other.pinned_sites() == sim.pinned_sites()
    assert torch.equal(other.model(DATA), sim.model(DATA))

    document = json.loads(path.read_text())
    del document["pinned"]  # as written before there were pins
    path.write_text(json.dumps(document))
    other.load_precision_profile(path)
    assert other.pinned_sites() == []
    document["pinned"] = ["nothing"]
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="unknown quantizers: nothing"):
        other.load_precision_profile(path)
    for wrong in ({"pinned": [3]}, {"precisions": dict.fromkeys(document, 8)}):
        path.write_text(json.dumps({**document, **wrong}))
        with pytest.raises(ValueError, match="profile has precisions and pinned"):
            other.load_precision_profile(path)


def test_requests_from_a_file(tmp_path):
    path = tmp_path / "requests.json"
    entries = [
        {"type": "Conv2d", "param": {"weight": "int4"}},
        {"type": "torch.nn.modules.linear.Linear", "activation": "int16"},
        {"layer": "block*", "activation": "fp16"},
        {"layer": "block/add_0", "activation": [None, "int12"]},
        {"model_input": ["int16"]},
        {"model_output": "int8"},
    ]
    path.write_text(json.dumps(entries))
    sim, by_hand = make_sim(), make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.load_requests(path)
    report = mmp.apply(None, strict=False)
    assert report.requests[3].detail.endswith("at requests.json, entry 4")

    mmp = MixedPrecisionConfigurator(by_hand)
    mmp.set_precision(torch.nn.Conv2d, None, {"weight": "int4"})
    mmp.set_precision(torch.nn.Linear, "int16")
    mmp.set_precision("block*", "fp16")
    mmp.set_precision("block/add_0", [None, "int12"])
    mmp.set_model_input_precision(["int16"])
    mmp.set_model_output_precision("int8")
    mmp.apply(None, strict=False)
    assert sim.precisions() == by_hand.precisions()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON file"),
        ("{}", "must hold a list of requests, got dict"),
        ("[3]", "entry 1: a request must be an object, got int"),
        ('[{"activation": "int8"}]', "entry 1: one of the keys layer, type"),
        ('[{"layer": "fc", "model_input": "int8"}]', "entry 1: one of the keys"),
        ('[{"layer": "fc", "act": "int8"}]', r"unknown keys beside 'layer': \['act'\]"),
        ('[{"model_input": "int8", "param": {}}]', "unknown keys beside"),
        ('[{"layer": 3}]', "'layer' must be a name, got 3"),
        ('[{"layer": "fc", "activation": "int1"}]', "entry 1: .*int1"),
        ('[{"layer": "fcc", "activation": "int8"}]', "entry 1: .*near to it: fc"),
        ('[{"layer": "fc"}]', "entry 1: 'layer' needs activation or param, or both"),
        (
            '[{"type": "Conv7d", "activation": "int8"}]',
            "'Conv7d' is the name of no class of a module",
        ),
    ],
)
def test_a_wrong_file_of_requests_adds_nothing(tmp_path, text, message):
    path = tmp_path / "requests.json"
    path.write_text(text)
    mmp = MixedPrecisionConfigurator(make_sim())
    mmp.set_precision("fc", "int16")
    with pytest.raises(ValueError, match=message):
        mmp.load_requests(path)
    assert len(mmp.apply(None).requests) == 1
