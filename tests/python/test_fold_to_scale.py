# SPDX-License-Identifier: BSD-3-Clause
"""Folding in a simulation: the integers stay, the batch norms go."""

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


def test_subclasses_that_compute_as_their_base_class_fold():
    class Checked(nn.BatchNorm2d):
        def forward(self, x):
            assert x.shape[1] == self.num_features
            return super().forward(x)

    class Padded(nn.Conv2d):
        def forward(self, x):
            return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias)

    torch.manual_seed(0)
    norm, x = Checked(4), torch.randn(8, 3, 8, 8)
    model = with_statistics(nn.Sequential(Padded(3, 4, 3, bias=False), norm, nn.ReLU()))
    norm.weight.data.abs_()  # a negative factor costs an integer
    sim = QuantizationSimModel(model, x, default_param_bw=4)
    sim.compute_encodings(lambda m: m(x))
    before = sim.model(x)
    assert len(fold_all_batch_norms_to_scale(sim)) == 1
    step = sim.model[2].output_quantizers[0].get_scale()
    assert ((sim.model(x) - before).abs() <= 1.001 * step).all()
