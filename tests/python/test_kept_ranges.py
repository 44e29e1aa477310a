# SPDX-License-Identifier: BSD-3-Clause
"""Which range a quantizer has after a change of its precision: the one that calibration
yields, unless it came from elsewhere; for weights, of what they hold now.
"""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path

import pytest
import torch
from amp_models import A8W4, A8W8, A16W16, choose
from mmp_models import apply_one, make_sim
from torch import nn

from aimetpp import QuantizationSimModel
from aimetpp.mixed_precision import MixedPrecisionConfigurator

torch.set_num_threads(1)

DATA = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def calibrated(**options):
    sim = make_sim(**options)
    sim.compute_encodings(lambda model: model(DATA))
    return sim


def relu1(sim):
    return sim.model.relu1.output_quantizers[0]


def weight(sim):
    return sim.model.conv3.param_quantizers["weight"]


def set_by_hand(sim, tmp_path):
    relu1(sim).set_range(0.0, 1.25)


def loaded(sim, tmp_path):
    other = make_sim()
    other.compute_encodings(lambda model: model(3 * DATA))
    other.save_encodings_to_json(tmp_path, "other")
    sim.load_encodings(tmp_path / "other.json")


def loaded_state(sim, tmp_path):
    other = make_sim()
    other.compute_encodings(lambda model: model(3 * DATA))
    sim.model.load_state_dict(other.model.state_dict())


def trained(sim, tmp_path):
    optimizer = torch.optim.SGD(sim.quantizer_parameters(), lr=0.01)
    sim.model(DATA).square().sum().backward()
    optimizer.step()


WAYS = {
    "mmp": lambda sim: apply_one(sim, "relu1", "int4"),
    "bitwidth": lambda sim: setattr(relu1(sim), "bitwidth", 4),
    "precisions": lambda sim: sim.apply_precisions(
        ["int4" if q is relu1(sim) else "int8" for q in sim.quantizers_by_index]
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("came", [set_by_hand, loaded, loaded_state, trained])
def test_a_range_that_calibration_did_not_make_keeps_its_ends(came, way, tmp_path):
    sim = calibrated()
    of_calibration = relu1(sim).min.item(), relu1(sim).max.item()
    came(sim, tmp_path)
    quantizer = relu1(sim)
    ends = quantizer.min.item(), quantizer.max.item()
    assert ends != of_calibration and not quantizer.follows_statistics()
    eight_bits = quantizer.get_encodings()
    WAYS[way](sim)
    assert quantizer.bitwidth == 4
    assert (quantizer.min.item(), quantizer.max.item()) == ends
    assert quantizer.get_scale().item() == pytest.approx((ends[1] - ends[0]) / 15)
    quantizer.bitwidth = 8
    assert quantizer.get_encodings() == eight_bits
    sim.compute_encodings(lambda model: model(DATA))
    assert (quantizer.min.item(), quantizer.max.item()) == of_calibration


def test_the_report_tells_which_ranges_stay(tmp_path):
    sim = calibrated()
    set_by_hand(sim, tmp_path)
    report = apply_one(sim, "relu1", "int4", None)
    states = {change.quantizer: change.range for change in report.changes}
    assert states["relu1"] == "as it was"
    assert "so the range stays: 1 quantizer: relu1" in str(report)
    report = apply_one(calibrated(), "relu1", "int4")
    assert [change.range for change in report.changes] == ["calibrated"]


def test_a_frozen_range_stays_whatever_else_changes():
    sim = calibrated()
    quantizer = weight(sim)
    quantizer.allow_overwrite(False)
    low, high = quantizer.min.detach().clone(), quantizer.max.detach().clone()
    with torch.no_grad():
        sim.model.conv3.weight.mul_(2)
    quantizer.bitwidth = 4
    assert torch.equal(quantizer.min, low) and torch.equal(quantizer.max, high)
    torch.testing.assert_close(quantizer.get_scale(), (high - low) / 15)


def test_a_new_percentile_leaves_ranges_set_by_hand():
    sim = calibrated(quant_scheme="percentile")
    relu1(sim).set_range(0.0, 1.25)
    before = sim.model.fc.output_quantizers[0].max.item()
    sim.set_percentile_value(90)
    assert relu1(sim).max.item() == 1.25
    assert sim.model.fc.output_quantizers[0].max.item() < before


def change_weight(sim):
    # Through .data, which no version counter sees.
    values = torch.randn(4, 4, 1, 1, generator=torch.Generator().manual_seed(5))
    sim.model.conv3.weight.data.copy_(values)


def replace_weight(sim):
    values = torch.randn(4, 4, 1, 1, generator=torch.Generator().manual_seed(5))
    sim.model.conv3.weight = nn.Parameter(values)


@pytest.mark.parametrize("scheme", ["min_max", "tf_enhanced"])
@pytest.mark.parametrize("change", [change_weight, replace_weight])
def test_the_range_of_a_changed_weight_is_of_what_it_holds_now(change, scheme):
    sim = calibrated(quant_scheme=scheme)
    change(sim)
    eight_bits = weight(sim).get_encodings()
    expected = make_sim(quant_scheme=scheme)
    change(expected)
    weight(expected).bitwidth = 4
    expected.compute_encodings(lambda model: model(DATA))
    assert weight(sim).get_encodings() == eight_bits  # until its precision changes
    apply_one(sim, "conv3", None, {"weight": "int4"})
    assert weight(sim).get_encodings() == weight(expected).get_encodings()


def test_a_weight_that_was_off_while_it_changed_has_its_range_renewed():
    sim = calibrated()
    apply_one(sim, "conv3", None, {"weight": "fp32"})
    change_weight(sim)
    apply_one(sim, "conv3", None, {"weight": "int8"})
    change_weight(expected := make_sim())
    expected.compute_encodings(lambda model: model(DATA))
    assert weight(sim).get_encodings() == weight(expected).get_encodings()


def test_a_range_set_by_hand_outlives_a_calibration_while_off():
    sim = calibrated()
    relu1(sim).set_range(0.0, 1.25)
    quantizer = relu1(sim)
    apply_one(sim, "relu1", "fp32")
    sim.compute_encodings(lambda model: model(DATA))
    apply_one(sim, "relu1", "int8")
    assert relu1(sim) is quantizer and quantizer.max.item() == 1.25


def test_folded_weights_have_not_changed_since_calibration():
    sim = calibrated()
    expected = calibrated()
    weight(expected).bitwidth = 4
    sim.fold_param_quantizers()
    weight(sim).bitwidth = 4
    assert torch.equal(weight(sim).max, weight(expected).max)


def test_a_copy_looks_at_its_own_weights():
    sim = calibrated()
    copied = copy.deepcopy(sim)
    change_weight(copied)
    model = copy.deepcopy(copied.model)
    untouched = calibrated()
    of_model = model.conv3.param_quantizers["weight"]
    for quantizer in (weight(sim), weight(copied), of_model, weight(untouched)):
        quantizer.bitwidth = 4
    expected = weight(untouched).get_encodings()
    assert weight(sim).get_encodings() == expected
    assert weight(copied).get_encodings() != expected
    assert of_model.get_encodings() == weight(copied).get_encodings()


def test_a_quantizer_does_not_keep_its_model_alive():
    sim = calibrated()
    gone = weakref.ref(sim.model.conv3)
    quantizer = weight(sim)
    gc.disable()
    try:
        del sim
        # The simulation's own bookkeeping has no cycles either.
        assert gone() is None
    finally:
        gc.enable()
    quantizer.bitwidth = 4
    assert quantizer.is_initialized()


def test_an_error_in_apply_undoes_renewed_ranges():
    class Full:
        def write(self, text):
            raise OSError("no space left")

    sim = calibrated()
    change_weight(sim)
    before = weight(sim).get_encodings()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("conv3", None, {"weight": "int4"})
    with pytest.raises(OSError, match="no space"):
        mmp.apply(Full())
    assert weight(sim).get_encodings() == before
    mmp.apply(None)  # still of calibration, so renewed
    change_weight(expected := make_sim())
    weight(expected).bitwidth = 4
    expected.compute_encodings(lambda model: model(DATA))
    assert weight(sim).get_encodings() == weight(expected).get_encodings()


def test_a_weight_with_a_nan_is_an_error_that_changes_nothing():
    sim = calibrated()
    before = weight(sim).get_encodings()
    sim.model.conv3.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"conv3\.weight.*NaN"):
        apply_one(sim, "conv3", None, {"weight": "int4"})
    assert weight(sim).get_encodings() == before


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def test_a_search_sees_one_range_for_each_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = torch.randn(8, 6)
    sim = QuantizationSimModel(Small().eval(), data[:1])
    sim.compute_encodings(lambda model: model(data))
    with torch.no_grad():
        sim.model.first.weight.mul_(1.5)  # after calibration
    sim.model.second.output_quantizers[0].set_range(-0.5, 0.75)
    seen: dict[tuple[str, str], list] = {}

    def spy(model: nn.Module) -> float:
        for name, quantizer in sim.named_quantizers():
            key = name, quantizer.precision
            seen.setdefault(key, []).append(
                (quantizer.min.tolist(), quantizer.max.tolist())
            )
        return float(len(seen))

    candidates = [A16W16, A8W8, A8W4]
    choose(sim, tmp_path, candidates=candidates, metric=spy, dummy_input=data[:1])
    assert any(len(ranges) > 3 for ranges in seen.values())
    for key, ranges in seen.items():
        assert all(each == ranges[0] for each in ranges), key
    by_hand = [ranges[0] for (_, _), ranges in seen.items() if ranges[0][0] == -0.5]
    assert by_hand and all(ends == (-0.5, 0.75) for ends in by_hand)
    quantizer = sim.model.first.param_quantizers["weight"]
    found = quantizer.get_encodings()
    with quantizer.compute_encodings():
        quantizer(sim.model.first.weight)
    assert quantizer.get_encodings() == found


def test_a_search_that_fails_leaves_stale_ranges_as_they_were(tmp_path: Path) -> None:
    sim = calibrated()
    change_weight(sim)
    before = [q.get_encodings() for q in sim.quantizers_by_index]

    def fails(model: nn.Module) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        choose(sim, tmp_path, metric=fails, dummy_input=DATA[:1])
    assert [q.get_encodings() for q in sim.quantizers_by_index] == before
    assert weight(sim).follows_statistics()
