# SPDX-License-Identifier: BSD-3-Clause
"""Bias correction: means of quantized layers are those of the float model."""

import itertools
import math

import pytest
import torch
from ptq_models import copied, digits, simulated, sqnr, trained_digits
from torch import nn

from aimetpp.batch_norm_fold import fold_all_batch_norms
from aimetpp.bias_correction import (
    ActivationType,
    ConvBnInfoType,
    QuantParams,
    correct_bias,
    find_all_conv_bn_with_activation,
)
from aimetpp.demo.digits import accuracy
from aimetpp.ptq.biases import clipped_normal_mean
from aimetpp.ptq.layerwise import mean_output
from aimetpp.quantsim import QuantizationSimModel

PER_TENSOR = {
    "weight_bw": 5,
    "quant_scheme": "min_max",
    "config_file": "default_per_tensor",
}


def loader(size=64, count=4):
    """(images, labels) batches of training images."""
    data = digits()
    for start in range(0, size * count, size):
        part = slice(start, start + size)
        yield data.train_images[part], data.train_labels[part]


def folded():
    model = trained_digits()
    known = find_all_conv_bn_with_activation(model, (1, 1, 8, 8))
    fold_all_batch_norms(model, (1, 1, 8, 8))
    return model, known


@pytest.mark.parametrize(
    ("low", "high"), [(-math.inf, math.inf), (0.0, math.inf), (0.0, 6.0)]
)
def test_clipped_normal_mean(low, high):
    mean = torch.tensor([-4.0, -0.5, 0.0, 3.0, 7.0], dtype=torch.float64)
    deviation = torch.tensor([0.0, 1.0, 2.0, 3.0, 0.5], dtype=torch.float64)
    # Midpoint rule over the density.
    z = torch.linspace(-8, 8, 40001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    values = (mean[:, None] + deviation[:, None] * z).clamp(low, high)
    expected = (values * density).sum(1) / density.sum()
    got = clipped_normal_mean(mean, deviation, low, high)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


def test_one_layer_by_hand():
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-1.0, 0.3]]))
    x = torch.tensor([[1.0, 1.0], [3.0, 1.0]])
    # Two bits, symmetric: -1, -0.5, 0, 0.5. So 0.3 becomes 0.5: 0.2 too much.
    params = QuantParams(
        2, 16, quant_scheme="min_max", config_file="default_per_tensor"
    )
    assert correct_bias(model, params, 2, [x], 2) == ["0"]
    torch.testing.assert_close(model[0].bias, torch.tensor([-0.2]), rtol=0, atol=1e-3)


def test_means_of_every_layer_are_those_of_the_float_model():
    model, _ = folded()
    corrected = copied(model)
    names = correct_bias(corrected, QuantParams(**PER_TENSOR), 256, list(loader()), 256)
    assert names == [
        "stem.0",
        "depthwise1.0",
        "pointwise1.0",
        "depthwise2.0",
        "pointwise2.0",
        "fc",
    ]
    x = digits().train_images[:256]
    error = {}
    for what, tested in (("before", model), ("after", corrected)):
        sim = simulated(tested, default_param_bw=5, config_file="default_per_tensor")
        sim.model.fc.output_quantizers[0] = None
        with torch.no_grad():
            error[what] = (sim.model(x).mean(0) - model(x).mean(0)).abs().max()
    assert error["after"] < error["before"] / 20


@pytest.mark.parametrize("empirical", [True, False])
def test_a_trained_net_gets_better(empirical):
    model, known = folded()
    assert len(known) == 3
    corrected = copied(model)
    names = {module: name for name, module in model.named_modules()}
    known = {corrected.get_submodule(names[m]): info for m, info in known.items()}
    correct_bias(
        corrected,
        QuantParams(**PER_TENSOR),
        256,
        list(loader()),
        256,
        conv_bn_dict=known,
        perform_only_empirical_bias_corr=empirical,
    )
    options = {"default_param_bw": 5, "config_file": "default_per_tensor"}
    before, after = simulated(model, **options), simulated(corrected, **options)
    assert sqnr(model, after.model) > sqnr(model, before.model) + 1
    assert accuracy(after.model, digits()) >= accuracy(before.model, digits())


def test_a_generator_is_read_once():
    model, _ = folded()
    batches = list(loader())
    biases = []
    for data in (batches, iter(batches)):
        corrected = copied(model)
        correct_bias(corrected, QuantParams(**PER_TENSOR), 256, data, 256)
        biases.append(corrected.fc.bias)
    assert torch.equal(*biases)


def test_an_error_on_the_way_leaves_the_model(monkeypatch):
    model, _ = folded()
    changed = copied(model)
    calls = itertools.count()

    def fail_late(*args):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return mean_output(*args)

    monkeypatch.setattr("aimetpp.ptq.biases.mean_output", fail_late)
    with pytest.raises(KeyboardInterrupt):
        correct_bias(changed, QuantParams(**PER_TENSOR), 64, list(loader()), 64)
    before = dict(model.state_dict())
    torch.testing.assert_close(dict(changed.state_dict()), before, rtol=0, atol=0)


def test_a_bias_that_the_layer_does_not_add_is_not_made():
    class Own(nn.Linear):
        def forward(self, x):
            return x @ self.weight.t()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Own(4, 3, bias=False))
    x = torch.randn(64, 4)
    assert correct_bias(model, QuantParams(4, 8), 64, [x], 64) == ["0"]
    assert model[2].bias is None


def test_ignored_layers_stay():
    model, _ = folded()
    corrected = copied(model)
    names = correct_bias(
        corrected,
        QuantParams(**PER_TENSOR),
        64,
        list(loader()),
        64,
        layers_to_ignore=[corrected.fc],
    )
    assert "fc" not in names
    assert torch.equal(corrected.fc.bias, model.fc.bias)
    assert not torch.equal(corrected.stem[0].bias, model.stem[0].bias)


def test_neighbours_of_batch_norms():
    relu6 = ActivationType.relu6
    model = trained_digits()
    known = find_all_conv_bn_with_activation(model, (1, 1, 8, 8))
    assert known == {
        model.depthwise1[0]: ConvBnInfoType(model.stem[1], relu6),
        model.pointwise1[0]: ConvBnInfoType(model.depthwise1[1], relu6),
        model.pointwise2[0]: ConvBnInfoType(model.depthwise2[1], relu6),
    }


def test_wrong_arguments():
    model, _ = folded()
    params, batches = QuantParams(**PER_TENSOR), list(loader())
    with pytest.raises(TypeError, match="quant_params must be QuantParams, got int"):
        correct_bias(model, 8, 64, batches, 64)
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got str"):
        correct_bias("model", params, 64, batches, 64)
    with pytest.raises(TypeError, match="num_quant_samples must be an int, got str"):
        correct_bias(model, params, "64", batches, 64)
    with pytest.raises(ValueError, match="num_bias_correct_samples must be at least 1"):
        correct_bias(model, params, 64, batches, 0)
    with pytest.raises(ValueError, match="requires conv_bn_dict"):
        correct_bias(
            model, params, 64, batches, 64, perform_only_empirical_bias_corr=False
        )
    with pytest.raises(ValueError, match="data_loader yields no batch"):
        correct_bias(model, params, 64, [], 64)
    with pytest.raises(ValueError, match="names a Conv2d that is no module"):
        correct_bias(
            model, params, 64, batches, 64, layers_to_ignore=[nn.Conv2d(1, 1, 1)]
        )
    with pytest.raises(ValueError, match="round_mode must be 'nearest'"):
        QuantParams(8, 8, "stochastic")
    assert QuantizationSimModel(model, batches[0][0]) is not None  # still a float model
