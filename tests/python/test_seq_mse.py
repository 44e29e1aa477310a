# SPDX-License-Identifier: BSD-3-Clause
"""SeqMSE: ranges of weights chosen by the layer's output."""

import itertools
import tempfile

import pytest
import torch
import torch.nn.functional as F
from ptq_models import digits, simulated, sqnr, trained_digits
from torch import nn

from aimetpp.adaround import Adaround, AdaroundParameters
from aimetpp.batch_norm_fold import fold_all_batch_norms
from aimetpp.demo.digits import accuracy
from aimetpp.quantsim import QuantizationSimModel
from aimetpp.quantsim.config_utils import set_blockwise_quantization_for_weights
from aimetpp.seq_mse import SeqMseParams, SequentialMse, apply_seq_mse


def reference_range(quantizer, weight, x, candidates):
    """Per output channel, by trying every range of a linear layer."""
    qmax = 2 ** (quantizer.bitwidth - 1) - 1
    largest = quantizer.get_scale().detach().flatten()
    chosen = []
    for row, scale in zip(weight, largest, strict=True):
        losses = []
        for k in range(1, candidates + 1):
            step = scale * k / candidates
            q = (row / step).round().clamp(-qmax - 1, qmax) * step
            losses.append((F.linear(x, q) - F.linear(x, row)).square().mean())
        chosen.append(scale * (torch.stack(losses).argmin() + 1) / candidates)
    return torch.stack(chosen)


@pytest.mark.parametrize("bits", [2, 4])
def test_against_the_obvious_search(bits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5))
    x = torch.randn(100, 6)
    sim = QuantizationSimModel(model, x[:1], default_param_bw=bits)
    with torch.no_grad():
        quantizer = sim.model[0].param_quantizers["weight"]
        sim.compute_encodings(lambda m: m(x))
        expected = reference_range(quantizer, model[0].weight, x, 20)
    assert apply_seq_mse(sim, [x[:70], x[70:]]) == ["0"]
    scale = quantizer.get_scale().flatten()
    torch.testing.assert_close(scale, expected, rtol=1e-4, atol=0)
    # Frozen: neither calibration nor training changes it.
    sim.compute_encodings(lambda m: m(x))
    torch.testing.assert_close(quantizer.get_scale().flatten(), scale)
    assert not quantizer.min.requires_grad


def folded():
    model = trained_digits()
    fold_all_batch_norms(model, (1, 1, 8, 8))
    data = digits()
    return model, [(data.train_images[i : i + 64], None) for i in range(0, 256, 64)]


@pytest.mark.parametrize("config", ["default", "default_per_tensor"])
@pytest.mark.parametrize("symmetry", ["symqt", "symfp", "asym"])
def test_a_trained_net_gets_better(symmetry, config):
    model, batches = folded()
    data = digits()
    options = {"default_param_bw": 4, "config_file": config}
    before = simulated(model, **options)
    after = QuantizationSimModel(model, data.train_images[:1], **options)
    params = SeqMseParams(None, inp_symmetry=symmetry)
    SequentialMse.apply_seq_mse(model, after, batches, params)
    after.compute_encodings(lambda m: m(data.train_images[:256]))
    assert sqnr(model, after.model) > sqnr(model, before.model) + 0.5
    assert accuracy(after.model, data) > accuracy(before.model, data) - 0.01


def test_grouped_and_transposed_layers():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ConvTranspose2d(4, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2)
    )
    x = torch.randn(8, 4, 5, 5)

    def error(search):
        sim = QuantizationSimModel(model, x[:1], default_param_bw=3)
        if search:
            apply_seq_mse(sim, [x])
        sim.compute_encodings(lambda m: m(x))
        with torch.no_grad():
            return (sim.model(x) - model(x)).square().mean()

    assert error(search=True) < error(search=False)


def test_excluded_modules_and_wrong_arguments():
    model, batches = folded()
    sim = simulated(model, default_param_bw=4)
    kept = sim.model.fc.param_quantizers["weight"].get_scale()
    names = apply_seq_mse(sim, batches, 4, modules_to_exclude=[sim.model.fc])
    assert names[0] == "stem.0" and "fc" not in names
    assert torch.equal(sim.model.fc.param_quantizers["weight"].get_scale(), kept)
    assert sim.model.fc.output_quantizers[0] is not None
    with pytest.raises(ValueError, match="names a Linear that is no module"):
        apply_seq_mse(sim, batches, modules_to_exclude=[model.fc])
    with pytest.raises(TypeError, match="sim must be a QuantizationSimModel"):
        apply_seq_mse(model, batches)
    with pytest.raises(ValueError, match="num_candidates must be at least 1, got 0"):
        apply_seq_mse(sim, batches, 0)
    with pytest.raises(TypeError, match="num_candidates must be an int, got str"):
        apply_seq_mse(sim, batches, "20")
    with pytest.raises(ValueError, match="loss_fn must be one of 'mse', 'l1'"):
        SeqMseParams(1, loss_fn="huber")


def test_an_error_on_the_way_leaves_all_ranges():
    torch.manual_seed(0)
    model, x = (
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)),
        torch.rand(8, 4),
    )
    sim = QuantizationSimModel(model, x, default_param_bw=3)
    sim.compute_encodings(lambda m: m(x))
    before = {name: q.get_encodings() for name, q in sim.named_quantizers()}
    calls = itertools.count()

    def fail_late(model, batch):
        if next(calls) == 1:  # at the second layer
            batch = batch * float("nan")
        return model(batch)

    with pytest.raises(ValueError, match="^2: .* its inputs are not all finite"):
        apply_seq_mse(sim, [x], forward_fn=fail_late)
    assert {name: q.get_encodings() for name, q in sim.named_quantizers()} == before
    weight = sim.model[0].param_quantizers["weight"]
    assert weight.min.requires_grad
    assert apply_seq_mse(sim, [x]) == ["0", "2"]
    assert not weight.min.requires_grad


def test_block_wise_ranges_of_a_channel_shrink_together():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 5)), torch.randn(64, 8)
    sim = QuantizationSimModel(model, x[:1], default_param_bw=3)
    set_blockwise_quantization_for_weights(
        sim, [nn.Linear], bitwidth=3, symmetric=True, block_size=4
    )
    sim.compute_encodings(lambda m: m(x))
    quantizer = sim.model[0].param_quantizers["weight"]
    before, low = sim.model(x), quantizer.min.detach().clone()
    apply_seq_mse(sim, [x])
    ratio = quantizer.min.detach() / low
    assert ratio.shape == (5, 2) and (ratio < 0.999).any()
    torch.testing.assert_close(ratio[:, 0], ratio[:, 1])
    with torch.no_grad():
        error = (sim.model(x) - model(x)).square().mean()
        assert error < (before - model(x)).square().mean()


def test_a_weight_that_two_layers_share_is_searched_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(F.relu(self.first(x)))

    torch.manual_seed(0)
    model, x = Tied(), torch.randn(64, 6)
    sim = QuantizationSimModel(model, x[:1], default_param_bw=2)
    assert apply_seq_mse(sim, [x]) == ["first"]
    params = AdaroundParameters([x], 1, default_num_iterations=20)
    with tempfile.TemporaryDirectory() as folder:
        rounded = Adaround.apply_adaround(model, x, params, folder, "tied", 2)
    assert rounded.first.weight is rounded.second.weight


def test_batches_of_keyword_arguments_with_labels():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 5)

        def forward(self, x, scale):
            return self.fc(x * scale)

    torch.manual_seed(0)
    model, x, scale = Pair(), torch.randn(32, 6), torch.rand(32, 1)
    batch = {"x": x, "scale": scale, "labels": torch.zeros(32)}
    as_dict, as_tuple = (
        QuantizationSimModel(model, example, default_param_bw=3)
        for example in ({"x": x, "scale": scale}, (x, scale))
    )
    assert apply_seq_mse(as_dict, [batch]) == ["fc"]
    apply_seq_mse(as_tuple, [((x, scale), torch.zeros(32))])
    ranges = [s.model.fc.param_quantizers["weight"].max for s in (as_dict, as_tuple)]
    assert torch.equal(*ranges)
