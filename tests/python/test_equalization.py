# SPDX-License-Identifier: BSD-3-Clause
"""Equalization: the same outputs from weights that lose less in quantization."""

import pytest
import torch
import torch.nn.functional as F
from ptq_models import (
    copied,
    digits,
    num_batch_norms,
    relative_change,
    simulated,
    sqnr,
    trained_digits,
    with_statistics,
)
from torch import nn

from aimetpp.batch_norm_fold import fold_all_batch_norms
from aimetpp.cross_layer_equalization import equalize_bn_folded_model, equalize_model
from aimetpp.demo.digits import accuracy
from aimetpp.quantsim import QuantizationSimModel


class Depthwise(nn.Module):
    """conv, ReLU, depthwise, ReLU, grouped transposed conv, PReLU, pool, conv."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 6, 3, groups=2, bias=False)
        self.slopes, self.pool = nn.PReLU(6), nn.MaxPool2d(2)
        self.last = nn.Conv2d(6, 4, 3, groups=2)
        self.fc1, self.fc2 = nn.Linear(4, 7), nn.Linear(7, 5)

    def forward(self, x):
        x = F.relu(self.depthwise(F.relu(self.norm(self.conv(x)))))
        x = self.last(self.pool(self.slopes(self.up(x))))
        return self.fc2(F.leaky_relu(self.fc1(x.mean((2, 3)))))


def channel_ranges(weight, axis):
    return weight.detach().abs().transpose(0, axis).flatten(1).amax(1)


def test_outputs_stay_and_ranges_become_equal():
    torch.manual_seed(0)
    model = with_statistics(Depthwise())
    changed = copied(model)
    chains = equalize_model(changed, (2, 3, 16, 16), fold_high_bias=False)
    assert chains == [("conv", "depthwise", "up"), ("up", "last"), ("fc1", "fc2")]
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert relative_change(copied(model), copied(changed), x) < 1e-6
    conv = channel_ranges(changed.conv.weight, 0)
    torch.testing.assert_close(channel_ranges(changed.depthwise.weight, 0), conv)
    torch.testing.assert_close(
        channel_ranges(changed.up.weight, 0), conv, rtol=1e-3, atol=0
    )
    fc1, fc2 = changed.fc1.weight, changed.fc2.weight
    torch.testing.assert_close(channel_ranges(fc1, 0), channel_ranges(fc2, 1))


def test_past_a_folded_functional_batch_norm():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
            self.norm = nn.BatchNorm2d(8)  # holds tensors, is not called

        def forward(self, x):
            mean, var = self.norm.running_mean, self.norm.running_var
            x = self.conv(x)
            x = F.batch_norm(x, mean, var, self.norm.weight, self.norm.bias)
            return self.last(F.relu(x))

    torch.manual_seed(0)
    model = with_statistics(Functional())
    changed = copied(model)
    chains = equalize_model(changed, (2, 3, 9, 9), fold_high_bias=False)
    assert chains == [("conv", "last")]
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    assert relative_change(copied(model), copied(changed), x) < 1e-6


def test_a_pair_by_hand():
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[8.0], [0.0]]))
        model[0].bias.copy_(torch.tensor([4.0, 3.0]))
        model[2].weight.copy_(torch.tensor([[2.0, 5.0]]))
    equalize_model(model, (1, 1))
    # sqrt(8 * 2) = 4: the first channel is divided by 2. The second has no weights
    # before the ReLU, and stays.
    torch.testing.assert_close(model[0].weight, torch.tensor([[4.0], [0.0]]))
    torch.testing.assert_close(model[0].bias, torch.tensor([2.0, 3.0]))
    torch.testing.assert_close(model[2].weight, torch.tensor([[4.0, 5.0]]))


@pytest.mark.parametrize("replace", [False, True])
def test_relu6_is_replaced_where_that_is_asked(replace):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 3), nn.ReLU6(), nn.Softmax(1)
    )
    changed = copied(model)
    chains = equalize_model(changed, (1, 3, 8, 8), replace_relu6=replace)
    assert chains == ([("0", "2")] if replace else [])
    assert type(changed[1]) is (nn.ReLU if replace else nn.ReLU6)
    assert type(changed[3]) is nn.ReLU6  # in no chain
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)  # nothing reaches 6
    assert relative_change(copied(model), copied(changed), x) < 1e-6


def high_bias_model():
    """A batch norm whose channels are far above zero, before a ReLU."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)
    )
    x = torch.randn(64, 3, 8, 8)
    model.train()
    for _ in range(100):
        model(x)
    with torch.no_grad():
        model[1].bias.copy_(torch.linspace(0, 40, 8))
    return model.eval(), x


def test_high_biases_move_to_the_next_layer():
    model, x = high_bias_model()
    folded = copied(model)
    pairs = fold_all_batch_norms(folded, x.shape)
    changed = copied(folded)
    # Pairs name the modules of the model that was folded.
    pairs = [(changed[0], pair[1]) for pair in pairs]
    assert equalize_bn_folded_model(changed, x.shape, pairs) == [("0", "3")]
    with torch.no_grad():
        before, after = folded[:3](x), changed[:3](x)
        signal, noise = model(x), changed(x) - model(x)
    assert after.amax() < before.amax() / 3
    # Less than 0.15 % of normally distributed values are below 3 deviations.
    assert 10 * torch.log10(signal.square().sum() / noise.square().sum()) > 50
    at_once = copied(model)
    equalize_model(at_once, x.shape)
    torch.testing.assert_close(at_once[3].bias, changed[3].bias)


def test_high_bias_folding_saves_activation_bits():
    model, x = high_bias_model()

    def output_sqnr(**options):
        changed = copied(model)
        equalize_model(changed, x.shape, **options)
        sim = QuantizationSimModel(changed, x, default_output_bw=6, default_param_bw=16)
        sim.compute_encodings(lambda m: m(x))
        sim.model[3].output_quantizers[0] = None
        with torch.no_grad():
            signal = model(x)
            signal_power = (signal - signal.mean((0, 2, 3), keepdim=True)).square()
            noise = sim.model(x) - signal
        return 10 * torch.log10(signal_power.sum() / noise.square().sum())

    assert output_sqnr() > output_sqnr(fold_high_bias=False) + 6


def test_a_trained_net_needs_fewer_weight_bits():
    model = trained_digits()
    folded, equalized = copied(model), copied(model)
    fold_all_batch_norms(folded, (1, 1, 8, 8))
    chains = equalize_model(equalized, (1, 1, 8, 8))
    assert [len(chain) for chain in chains] == [3, 3]
    assert num_batch_norms(equalized) == 0
    options = {"default_param_bw": 4, "config_file": "default_per_tensor"}
    before, after = simulated(folded, **options), simulated(equalized, **options)
    assert sqnr(model, after.model) > sqnr(model, before.model) + 2
    assert accuracy(after.model, digits()) > accuracy(before.model, digits()) + 0.05
