# SPDX-License-Identifier: BSD-3-Clause
"""Batch-norm re-estimation: averages over batches, and what they win."""

import weakref

import pytest
import torch
from ptq_models import digits, num_batch_norms, simulated, sqnr, trained_digits
from torch import nn

from aimetpp.batch_norm_fold import fold_all_batch_norms_to_scale
from aimetpp.bn_reestimation import reestimate_bn_stats
from aimetpp.demo.digits import accuracy


def batches(size=128, count=8):
    data = digits()
    for start in range(0, size * count, size):
        part = slice(start, start + size)
        yield data.train_images[part], data.train_labels[part]


def test_averages_over_batches_and_can_be_undone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = [torch.randn(10, 3) * 2 + 1, torch.randn(6, 3) - 4, torch.randn(9, 3)]
    handle = reestimate_bn_stats(model, data, num_batches=2)
    norm = model[0]
    expected = (data[0].mean(0) + data[1].mean(0)) / 2
    torch.testing.assert_close(norm.running_mean, expected)
    torch.testing.assert_close(norm.running_var, (data[0].var(0) + data[1].var(0)) / 2)
    assert norm.momentum == 0.1 and not any(m.training for m in model.modules())
    handle.remove()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    with reestimate_bn_stats(model, data):
        assert not torch.equal(norm.running_mean, before["0.running_mean"])
    assert torch.equal(norm.running_mean, before["0.running_mean"])


def test_a_trained_net_with_narrow_weights_gets_better():
    """Rounded weights have other outputs than those whose statistics were kept."""
    model = trained_digits()
    sim = simulated(model, default_param_bw=3)
    before = sqnr(model, sim.model), accuracy(sim.model, digits())
    reestimate_bn_stats(sim.model, batches())
    sim.compute_encodings(lambda m: m(digits().train_images[:256]))
    after = sqnr(model, sim.model), accuracy(sim.model, digits())
    assert after[0] > before[0] + 3
    assert after[1] > before[1] + 0.05
    fold_all_batch_norms_to_scale(sim)
    assert num_batch_norms(sim.model) == 0
    assert sqnr(model, sim.model) > after[0] - 1


def test_batches_are_not_kept():
    alive = weakref.WeakSet()

    def batches():
        for _ in range(8):
            assert len(alive) <= 2  # the first one, and the one before
            batch = torch.randn(4, 3)
            alive.add(batch)
            yield batch
            del batch

    model = nn.Sequential(nn.BatchNorm1d(3))
    reestimate_bn_stats(model, batches())
    assert model[0].running_mean.any()


def test_a_failing_forward_leaves_the_statistics():
    model = nn.Sequential(nn.BatchNorm1d(3)).eval()

    def forward(model, batch):
        model(batch)
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        reestimate_bn_stats(model, [torch.randn(4, 3)], forward_fn=forward)
    assert not model[0].running_mean.any() and model[0].momentum == 0.1


def test_wrong_arguments():
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got str"):
        reestimate_bn_stats("model", [torch.randn(4, 3)])
    with pytest.raises(ValueError, match="has no batch norm with kept statistics"):
        reestimate_bn_stats(nn.Linear(3, 3), [torch.randn(4, 3)])
    model = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="data_loader yields no batch"):
        reestimate_bn_stats(model, [])
    with pytest.raises(ValueError, match="num_batches must be at least 1, got 0"):
        reestimate_bn_stats(model, [torch.randn(4, 3)], num_batches=0)
