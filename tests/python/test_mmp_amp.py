# SPDX-License-Identifier: BSD-3-Clause
"""Manual mixed precision before and after automatic mixed precision."""

from __future__ import annotations

import json

import pytest
import torch
from amp_models import A4W4, A8W8, A16W16, images, make_net

from aimetpp.mixed_precision import (
    MixedPrecisionConfigurator,
    auto_mixed_precision,
    choose_mixed_precision,
    estimate_mixed_precision,
)
from aimetpp.quantsim import QuantizationSimModel


def make_sim():
    sim = QuantizationSimModel(make_net(), images()[:1])
    sim.compute_encodings(lambda model: model(images()))
    return sim


def search(sim, folder, **options):
    """Everything is cheap enough for this metric, so all is narrowed."""
    return choose_mixed_precision(
        sim,
        images()[:1],
        [A16W16, A8W8, A4W4],
        lambda model: 1.0,
        lambda model: 1.0,
        None,
        folder,
        True,
        None,
        progress=False,
        **options,
    )


def by_name(sim):
    return {
        sim.graph.site_name(spec.sites[0]): precision
        for spec, precision in zip(
            sim.placement.quantizers, sim.precisions(), strict=True
        )
    }


def ask(sim, *requests):
    mmp = MixedPrecisionConfigurator(sim)
    for request in requests:
        mmp.set_precision(*request)
    return mmp.apply(None)


def test_a_search_leaves_pinned_quantizers_alone(tmp_path):
    sim = make_sim()
    ask(sim, ("conv2", None, {"weight": "int12"}), ("fc", "fp16", {"weight": "int8"}))
    pinned = sim.pinned_sites()
    result = search(sim, tmp_path)
    found = by_name(sim)
    assert found["conv2.weight"] == "int12"
    assert found["fc.weight"] == "int8" and found["fc"] == "fp16"
    free = {name: p for name, p in found.items() if name not in pinned}
    assert set(free.values()) == {"int4"} and {"relu", "conv1.weight"} <= set(free)
    assert sim.pinned_sites() == pinned
    assert result.chosen.cost < 1


def everything_pinned():
    sim = make_sim()
    ask(sim, (sim.model, "int16", {"weight": "int16"}))
    return sim


def test_unpinned_they_are_searched_again(tmp_path):
    sim = everything_pinned()
    sim.unpin()
    search(sim, tmp_path)
    assert set(sim.precisions()) == {"int4"}


@pytest.mark.parametrize("convert_op_reduction", [False, True])
@pytest.mark.parametrize("drop", [None, 0.01])
def test_where_all_is_pinned_there_is_nothing_to_narrow(
    tmp_path, drop, convert_op_reduction
):
    sim = everything_pinned()
    before, scores = sim.precisions(), []

    def evaluate(model):
        scores.append(0.75)
        return 0.75

    arguments = (
        *(sim, images()[:1], [A16W16, A8W8, A4W4], evaluate, evaluate, drop),
        *(tmp_path, True, None),
    )
    options = {"convert_op_reduction": convert_op_reduction, "progress": False}
    estimate = estimate_mixed_precision(*arguments, **options)
    assert estimate.phases["sensitivity"].most == 0 and sim.precisions() == before
    scores.clear()
    result = choose_mixed_precision(*arguments, **options)
    assert result.stop_reason == "nothing_to_narrow"
    assert list(result) == [] and result.chosen is None and result.alphas == []
    assert (result.fp32_score, result.final_score) == (0.75, 0.75)
    assert result.summary.num_groups == 0 and sim.precisions() == before
    assert scores == [0.75, 0.75]  # float, and as it is
    assert json.loads((tmp_path / "pareto_list.json").read_text()) == []


def test_where_all_is_pinned_the_target_may_still_be_missed(tmp_path):
    sim = everything_pinned()
    pinned = sim.precisions()

    def evaluate(model):
        return 1.0 if set(sim.precisions()) == {"fp32"} else 0.5

    result = choose_mixed_precision(
        *(sim, images()[:1], [A8W8, A4W4], evaluate, evaluate, 0.1),
        *(tmp_path, True, None),
        progress=False,
    )
    assert result.stop_reason == "target_unreachable" and result.chosen is None
    assert (result.fp32_score, result.final_score) == (1.0, 0.5)
    assert sim.precisions() == pinned


def test_where_all_is_pinned_one_metric_narrows_nothing():
    sim = everything_pinned()
    result = auto_mixed_precision(
        sim, A16W16, A4W4, target=0.5, evaluate=lambda model: 1.0, progress=False
    )
    assert result.stop_reason == "nothing_to_narrow" and result.chosen is None
    assert set(sim.precisions()) == {"int16"}


def test_what_was_named_but_is_pinned_is_not_searched(tmp_path):
    sim = make_sim()
    ask(sim, ("fc", "int16", {"weight": "int16"}))
    result = search(sim, tmp_path, include=["fc.weight"])
    assert result.stop_reason == "nothing_to_narrow"
    assert by_name(sim)["fc.weight"] == "int16" and by_name(sim)["conv2"] == "int8"


def test_a_searched_result_is_fine_tuned_by_hand_and_carried_over(tmp_path):
    sim = make_sim()
    search(sim, tmp_path)
    report = ask(sim, ("conv2", "int16", {"weight": "int8"}))
    assert {line.subject: line.detail for line in report.realized} == {
        "relu, /add_0, /cat_0": "int4 -> int16",
        "conv2.weight": "int4 -> int8",
        "conv2": "int4 -> int16",
    }
    assert report.bit_ops_after == sim.bit_ops() > report.bit_ops_before
    assert all(change.range == "calibrated" for change in report.changes)

    sim.save_precision_profile(tmp_path / "profile.json")
    other = make_sim()
    other.load_precision_profile(tmp_path / "profile.json")
    assert torch.equal(other.model(images()), sim.model(images()))
    # The profile carries the pins, so that a new search keeps what was set by hand.
    search(other, tmp_path / "again")
    assert by_name(other)["conv2.weight"] == "int8"
    assert by_name(other)["relu"] == "int16"
