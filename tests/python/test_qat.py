# SPDX-License-Identifier: BSD-3-Clause
"""Quantization-aware training: gradients, what is learnt, folding, accuracy won."""

from __future__ import annotations

import copy

import pytest
import torch
from qat_models import LEARNING, Net, batches, make_optimizer, make_sim, train
from torch import nn

from aimetpp.quantization import QuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel

torch.set_num_threads(1)


# -- gradients and what is learnt ---------------------------------------------


def test_gradients_pass_straight_through_to_float_weights():
    sim = make_sim(bits=2)
    weight = sim.model.fc.weight
    before = weight.detach().clone()
    quantizer = sim.model.fc.param_quantizers["weight"]
    on_grid = quantizer(before).detach()
    assert on_grid.unique().numel() <= 4 * 3 and not torch.equal(on_grid, before)
    loss = nn.functional.cross_entropy(sim.model(batches()[0][0]), batches()[0][1])
    loss.backward()
    low, high = quantizer.get_min(), quantizer.get_max()
    step = quantizer.get_scale()
    inside = (before > low - step / 2) & (before < high + step / 2)
    assert (weight.grad[inside.detach()] != 0).any()
    assert (weight.grad[~inside.detach()] == 0).all()
    # A step far smaller than the grid moves the float weight, which is what is kept.
    torch.optim.SGD([weight], lr=1e-6).step()
    assert not torch.equal(weight, before)
    assert torch.equal(sim.model.state_dict()["fc.weight"], weight)
    assert torch.equal(quantizer(weight), quantizer(before))


def test_parameter_groups_are_disjoint_and_whole():
    sim = make_sim()
    own = {id(p) for p in sim.model_parameters()}
    ranges = [id(p) for p in sim.quantizer_parameters()]
    assert len(ranges) == len(set(ranges)) and own.isdisjoint(ranges)
    assert own | set(ranges) == {id(p) for p in sim.model.parameters()}
    assert [p.shape for p in sim.model_parameters()] == [
        p.shape for p in Net().parameters()
    ]


@pytest.mark.parametrize("learns", LEARNING)
def test_training_changes_what_it_is_asked_to(learns):
    sim = make_sim(learns)
    quantizers = {name: q for name, q in sim.named_quantizers()}
    before = {name: [e.clone() for e in q.ends()] for name, q in quantizers.items()}
    offsets = {name: q.get_offset().clone() for name, q in quantizers.items()}
    scales = {name: q.get_scale().clone() for name, q in quantizers.items()}
    losses = train(sim.model, make_optimizer(sim), batches() * 4)
    assert sum(losses[-8:]) < sum(losses[:8])
    moved = {
        name
        for name, q in quantizers.items()
        if not all(map(torch.equal, q.ends(), before[name]))
    }
    assert moved == (set() if learns is None else set(quantizers))
    if learns == "scale":
        for name, quantizer in quantizers.items():
            assert torch.equal(quantizer.get_offset(), offsets[name])
            assert not torch.equal(quantizer.get_scale(), scales[name])


def test_a_frozen_encoding_stays_while_others_learn(tmp_path):
    sim = make_sim()
    sim.save_encodings_to_json(tmp_path, "encodings")
    sim.set_and_freeze_param_encodings(tmp_path / "encodings.json")
    sim.learn_ranges("scale", "scale")  # does not thaw what was frozen by hand
    frozen = sim.model.fc.param_quantizers["weight"]
    before = frozen.min.detach().clone(), frozen.max.detach().clone()
    output = sim.model.fc.output_quantizers[0]
    scale = output.get_scale().detach().clone()
    assert not {id(frozen.min), id(frozen.max)} & {
        id(p) for p in sim.quantizer_parameters()
    }
    train(sim.model, make_optimizer(sim), batches())
    assert torch.equal(frozen.min, before[0]) and torch.equal(frozen.max, before[1])
    assert not torch.equal(output.get_scale(), scale)


def test_learning_can_be_chosen_again():
    sim = make_sim(None)
    assert list(sim.quantizer_parameters()) == []
    sim.learn_ranges(activations="scale", params="min_max")
    assert sim.model.fc.output_quantizers[0].learns == "scale"
    assert sim.model.fc.param_quantizers["weight"].learns == "min_max"
    assert list(sim.quantizer_parameters())
    with pytest.raises(ValueError, match="params must be one of"):
        sim.learn_ranges(None, "lsq")
    assert sim.model.fc.output_quantizers[0].learns == "scale"


# -- after training ---------------------------------------------------------------


def test_folded_parameters_are_on_their_grid_and_outputs_stay():
    sim = make_sim()
    train(sim.model, make_optimizer(sim), batches(3))
    sim.model.eval()
    x = batches()[0][0]
    expected, weight = sim.model(x), sim.model.fc.weight.detach().clone()
    quantizer = sim.model.fc.param_quantizers["weight"]
    on_grid, encodings = quantizer(weight), quantizer.get_encodings()
    sim.fold_param_quantizers()
    assert torch.equal(sim.model(x), expected)
    assert torch.equal(sim.model.fc.weight, on_grid)
    assert not sim.model.fc.weight.requires_grad and sim.model.fc.bias.requires_grad
    assert quantizer.get_encodings() == encodings
    quantizer.bitwidth = 2  # a new grid quantizes again
    assert quantizer(sim.model.fc.weight).unique().numel() <= 4 * 3


def test_folding_needs_ranges():
    sim = QuantizationSimModel(Net(), torch.zeros(2, 2, 6, 6))
    before = sim.model.fc.weight.detach().clone()
    with pytest.raises(RuntimeError, match="no range yet: conv.weight"):
        sim.fold_param_quantizers()
    assert torch.equal(sim.model.fc.weight, before)


def test_digits_at_four_bits_win_back_what_was_lost():
    digits = pytest.importorskip("aimetpp.demo.digits")
    pytest.importorskip("sklearn")
    data = digits.load_digits()
    model = digits.train_float(data, digits.DEFAULT_SEED)
    sim = QuantizationSimModel(
        model,
        data.train_images[:1],
        default_output_bw=4,
        default_param_bw=4,
        config_file="default_per_tensor",
    )
    sim.compute_encodings(lambda quantized: quantized(data.train_images[:512]))
    floating = digits.accuracy(model, data)
    quantized = digits.accuracy(sim.model.eval(), data)
    with torch.no_grad():
        teacher = model(data.train_images)
    digits.fine_tune(
        sim.model, teacher, data, digits.DEFAULT_SEED, epochs=24, rate=2e-3
    )
    trained = digits.accuracy(sim.model, data)
    assert floating - quantized > 0.1  # there is something to win back
    assert trained - quantized >= 0.8 * (floating - quantized)


@pytest.mark.parametrize("learns", ["min_max", "scale"])
def test_ends_that_were_trained_past_each_other_are_exchanged(learns, tmp_path):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU()), torch.randn(64, 4)
    sim = QuantizationSimModel(model, x)
    sim.compute_encodings(lambda m: m(x))
    sim.learn_ranges(activations=learns, params=learns)
    assert sim.order_ranges() == []
    output = sim.model[1].output_quantizers[0]
    with torch.no_grad():  # as one step at a rate far too high
        output.min.fill_(2.0)
        output.max.fill_(-0.5)
    before = sim.model(x)
    for write in (
        lambda: sim.save_encodings_to_json(tmp_path, "crossed"),
        lambda: sim.export(tmp_path, "crossed"),
        lambda: sim.export_torchscript(tmp_path / "crossed.pt"),
        lambda: sim.export_torchscript(tmp_path / "crossed.pt", portable=True),
    ):
        with pytest.raises(RuntimeError, match="'1.*negative step.*order_ranges"):
            write()
    assert list(tmp_path.iterdir()) == []
    assert sim.order_ranges() == ["1"]
    # An asymmetric grid has the same values.
    torch.testing.assert_close(sim.model(x), before)
    assert output.get_scale() > 0
    assert output.get_min() < output.get_max()
    sim.save_encodings_to_json(tmp_path, "ordered")
    assert output.min.requires_grad
    # One that a user put where the config has none is no exception.
    own = sim.model[0].output_quantizers[0] = QuantizeDequantize((), 8, False)
    own.set_range(-1.0, 1.0)
    with torch.no_grad():
        own.min.fill_(2.0)
    with pytest.raises(RuntimeError, match="'0' has a negative step"):
        sim.save_encodings_to_json(tmp_path, "crossed")
    assert sim.order_ranges() == ["0"]
    sim.save_encodings_to_json(tmp_path, "ordered")


@pytest.mark.parametrize("learns", LEARNING)
def test_copies_and_averages_of_a_simulation_in_training(learns):
    sim, data = make_sim(learns), batches(2)
    average = torch.optim.swa_utils.AveragedModel(sim.model)
    train(sim.model, make_optimizer(sim), data)
    average.update_parameters(sim.model)
    x, _ = data[0]
    copied, before = copy.deepcopy(sim), sim.model(x)
    assert torch.equal(copied.model(x), before)
    train(copied.model, make_optimizer(copied), data)
    assert not torch.equal(copied.model(x), before)
    assert torch.equal(sim.model(x), before)
    sim.model.load_state_dict(average.module.state_dict())
    assert torch.equal(sim.model.eval()(x), average.eval()(x))
