# SPDX-License-Identifier: BSD-3-Clause
"""Folding in a simulation: the integers stay, the batch norms go."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from ptq_models import num_batch_norms, with_statistics
from torch import nn

from aimetpp.batch_norm_fold import fold_all_batch_norms_to_scale
from aimetpp.quantsim import QuantizationSimModel


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.up, self.up_norm = nn.ConvTranspose2d(6, 4, 3), nn.BatchNorm2d(4)
        self.relu, self.fc = nn.ReLU(), nn.Linear(4 * 64, 5)

    def forward(self, x):
        x = self.relu(self.norm(self.conv(x)))
        return self.fc(self.up_norm(self.up(x)).flatten(1))


def calibrated(**options):
    torch.manual_seed(1)
    model = with_statistics(Net())
    x = torch.randn(4, 3, 8, 8)
    sim = QuantizationSimModel(model, x, **options)
    sim.compute_encodings(lambda m: m(x))
    return sim, x


def integers(module):
    """What the weights are quantized to."""
    quantizer = module.param_quantizers["weight"]
    return torch.ops.aimetpp.quantize(module.weight, *quantizer._arguments())


@pytest.mark.parametrize("bits", [4, 8])
def test_integers_and_outputs_stay(bits, tmp_path):
    sim, x = calibrated(default_param_bw=bits)
    before, weights = sim.model(x), integers(sim.model.conv)
    signs = sim.model.norm.weight.sign().reshape(-1, 1, 1, 1)
    pairs = fold_all_batch_norms_to_scale(sim)
    assert pairs[0][0] is sim.model.conv and len(pairs) == 2
    assert isinstance(pairs[0][1], nn.Identity) and num_batch_norms(sim.model) == 0
    lowest = -(2 ** (bits - 1))
    expected = weights * signs
    expected[expected == -lowest] = -lowest - 1  # has no counterpart above zero
    assert torch.equal(integers(sim.model.conv), expected)
    # Where a lowest integer lost a step, outputs may move by a step or two.
    step = sim.model.fc.output_quantizers[0].get_scale()
    assert (sim.model(x) - before).abs().max() <= 2.1 * step
    sim.export(tmp_path, "folded")
    assert "norm.running_mean" not in sim.model.state_dict()


def test_positive_factors_leave_the_outputs():
    sim, x = calibrated()
    with torch.no_grad():
        for norm in (sim.model.norm, sim.model.up_norm):
            norm.weight.abs_()
    sim.compute_encodings(lambda m: m(x))
    before = sim.model(x)
    fold_all_batch_norms_to_scale(sim)
    step = sim.model.fc.output_quantizers[0].get_scale()
    assert (sim.model(x) - before).abs().max() <= 1.01 * step
    assert (sim.model(x) == before).float().mean() > 0.9


def test_what_cannot_be_folded_is_an_error_and_changes_nothing():
    sim, x = calibrated(config_file="default_per_tensor")
    before = sim.model(x)
    with pytest.raises(RuntimeError, match="one range per output channel"):
        fold_all_batch_norms_to_scale(sim)
    assert torch.equal(sim.model(x), before)
    uncalibrated = QuantizationSimModel(with_statistics(Net()), x)
    with pytest.raises(RuntimeError, match=r"conv.weight has no range yet"):
        fold_all_batch_norms_to_scale(uncalibrated)
    with pytest.raises(TypeError, match="a QuantizationSimModel is required, got Net"):
        fold_all_batch_norms_to_scale(Net())


class Checked(nn.BatchNorm2d):
    """Computes as its base class does, which only running it shows."""

    def forward(self, x):
        assert x.shape[1] == self.num_features
        return super().forward(x)


def folded_and_compared(model, x):
    """How many batch norms fold, with outputs at most a step of their grid away."""
    model = with_statistics(model)
    model.norm.weight.data.abs_()  # a negative factor costs an integer
    sim = QuantizationSimModel(model, x, default_param_bw=4)
    sim.compute_encodings(lambda m: m(x))
    before = sim.model(x)
    folded = fold_all_batch_norms_to_scale(sim)
    step = sim.model.relu.output_quantizers[0].get_scale()
    assert ((sim.model(x) - before).abs() <= 1.001 * step).all()
    return len(folded)


def test_subclasses_that_compute_as_their_base_class_fold():
    class Padded(nn.Conv2d):
        def forward(self, x):
            return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias)

    torch.manual_seed(0)
    layers = {"conv": Padded(3, 4, 3, bias=False), "norm": Checked(4)}
    model = nn.Sequential(OrderedDict(**layers, relu=nn.ReLU()))
    assert folded_and_compared(model, torch.randn(8, 3, 8, 8)) == 1


def test_a_subclass_that_is_called_twice_folds():
    # Its quantized module cannot be run alone: it would not know as which call.
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
            self.norm, self.relu = Checked(4), nn.ReLU()

        def forward(self, x):
            for _ in range(2):
                x = self.relu(self.norm(self.conv(x)))
            return x

    torch.manual_seed(0)
    assert folded_and_compared(Twice(), torch.randn(8, 4, 8, 8)) == 1
