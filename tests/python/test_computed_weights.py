# SPDX-License-Identifier: BSD-3-Clause
"""Weights that are computed before each use are quantized as weights."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

from aimetpp.batch_norm_fold import fold_all_batch_norms
from aimetpp.quantsim import QuantizationSimModel


def pruned(layer):
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


COMPUTATIONS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "old_weight_norm": old_weight_norm,
    "old_spectral_norm": old_spectral_norm,
    "pruned": pruned,
}


def example():
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def simulate(model, bits=8):
    x = example()
    sim = QuantizationSimModel(
        model.eval(), x, default_output_bw=bits, default_param_bw=bits
    )
    sim.compute_encodings(lambda m: m(x))
    return sim


@pytest.mark.parametrize("compute", COMPUTATIONS.values(), ids=COMPUTATIONS)
def test_the_computed_weight_is_the_param_site(compute):
    torch.manual_seed(0)
    model = nn.Sequential(compute(nn.Linear(8, 6)), nn.ReLU())
    sim = simulate(model)
    on = [site.name for site in sim.sites() if site.quantizer is not None]
    assert on == ["0.input.0", "0.weight", "1"]
    assert [op.kind for op in sim.graph.ops if op.call >= 0] == ["linear", "relu"]
    assert sim.bit_ops() == 8 * 6 * 8 * 8

    # By hand: the float layer on quantized input and weight.
    layer, x = sim.model[0], example()
    weight = sim.model[0].param_quantizers["weight"]
    with torch.no_grad():
        assert weight.get_scale().numel() == 6
        expected = torch.relu(
            nn.functional.linear(
                layer.input_quantizers[0](x), weight(layer.weight), layer.bias
            )
        )
        assert torch.equal(sim.model(x), sim.model[1].output_quantizers[0](expected))
        model(x)
        assert torch.equal(layer.weight, model[0].weight)

    sim.model.train()
    sim.model(x).square().sum().backward()
    own = [p for n, p in sim.model.named_parameters() if "quantizers" not in n]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in own)


@pytest.mark.parametrize("compute", COMPUTATIONS.values(), ids=COMPUTATIONS)
def test_the_original_model_computes_as_before(compute):
    torch.manual_seed(0)
    model = nn.Sequential(compute(nn.Linear(8, 6)), nn.ReLU())
    model(example())  # leaves a weight with a gradient behind
    sim = simulate(model)
    original = QuantizationSimModel.get_original_model(sim)
    assert list(original.state_dict()) == list(model.state_dict())
    assert torch.equal(original(example()), model.eval()(example()))
    assert type(original[0]).__name__ == type(model[0]).__name__
    assert torch.equal(copy.deepcopy(sim).model(example()), sim.model(example()))
    with pytest.raises(ValueError, match="0.weight is computed from others"):
        QuantizationSimModel.get_original_model(sim, qdq_weights=True)


def test_folding_quantized_parameters_changes_all_of_them_or_none():
    torch.manual_seed(0)
    second = nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))
    sim = simulate(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), second))
    before, expected = sim.model[0].weight.clone(), sim.model(example())
    with pytest.raises(ValueError, match="fold_param_q.*: 2.weight is computed from"):
        sim.fold_param_quantizers()
    assert torch.equal(sim.model[0].weight, before)
    assert torch.equal(sim.model(example()), expected)


@pytest.mark.parametrize("compute", COMPUTATIONS.values(), ids=COMPUTATIONS)
def test_nothing_folds_into_a_computed_weight(compute):
    model = nn.Sequential(compute(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4)).eval()
    x = torch.randn(1, 3, 4, 4)
    expected = model(x)
    assert fold_all_batch_norms(model, x.shape) == []
    assert torch.equal(model(x), expected)


def test_calibration_uses_the_weight_of_now():
    torch.manual_seed(0)
    sim = simulate(nn.Sequential(old_weight_norm(nn.Linear(8, 6))))
    before = sim.model[0].param_quantizers["weight"].get_max().clone()
    with torch.no_grad():
        sim.model[0].weight_g.mul_(2)
    sim.compute_encodings(lambda m: m(example()))
    after = sim.model[0].param_quantizers["weight"].get_max()
    assert torch.allclose(after, 2 * before)


def test_two_calls_share_the_quantizer_of_the_weight():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = parametrizations.weight_norm(nn.Linear(8, 8))

        def forward(self, x):
            return self.fc(torch.relu(self.fc(x)))

    sim = simulate(Twice())
    params = [spec for spec in sim.placement.quantizers if spec.kind == "param"]
    assert len(params) == 1 and len(params[0].sites) == 2


def test_recurrent_and_functional_readers():
    class Readers(nn.Module):
        """A parametrized LSTM; a parametrized module with a child of its own."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            lstm = nn.LSTM(8, 8, batch_first=True)
            self.lstm = parametrizations.weight_norm(lstm, "weight_hh_l0")
            self.head = parametrizations.weight_norm(Head())

        def forward(self, x):
            return self.head(self.lstm(x[None])[0][0])

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 8))
            self.act = nn.ReLU()

        def forward(self, x):
            return self.act(nn.functional.linear(x, self.weight))

    sim = simulate(Readers())
    on = [site.name for site in sim.sites() if site.quantizer is not None]
    assert on == [
        "lstm.input.0",
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
        "lstm",
        "head/linear_0.head.weight",
        "head.act",
    ]
    sim.model(example()).sum().backward()
    assert sim.model.head.parametrizations.weight.original1.grad.abs().sum() > 0
