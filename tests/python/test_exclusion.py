# SPDX-License-Identifier: BSD-3-Clause
"""Layers and parameters that a user leaves out of quantization."""

import pytest
import torch
from torch import nn

from aimetpp.mixed_precision import MixedPrecisionConfigurator
from aimetpp.quantsim import QuantizationSimModel


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        return self.fc((torch.relu(self.conv(x)) + 1).mean((2, 3)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture
def images():
    return torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def sim(network, images):
    sim = QuantizationSimModel(network, images[:1])
    sim.compute_encodings(lambda model: model(images))
    return sim


def test_exclude_layers(sim):
    sim.exclude_layers_from_quantization([sim.model.fc])
    assert sim.model.fc.param_quantizers["weight"] is None
    with pytest.raises(ValueError, match="not a module of this simulation"):
        sim.exclude_layers_from_quantization([nn.Linear(2, 2)])
    with pytest.raises(TypeError, match="a list of modules is required, got"):
        sim.exclude_layers_from_quantization(sim.model.fc)


def test_excluded_layers_stay_unquantized():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.left(x), self.right(x)

    x = torch.randn(5, 4)
    sim = QuantizationSimModel(Branches(), x)
    sim.compute_encodings(lambda model: model(x))
    before = sim.precisions()
    sim.exclude_layers_from_quantization([sim.model.left])
    sim.exclude_param_from_quantization("right.weight")
    now = sim.precisions()
    assert now.count("fp32") == 3 and now.count("int8") == 2
    # The input's quantizer stands in both layers: it changes in the one that is left.
    sim.apply_precisions(["int16" if p == "int8" else p for p in now])
    assert sim.model.right.input_quantizers[0].bitwidth == 16
    assert sim.model.left.input_quantizers[0] is None
    assert torch.equal(sim.model(x)[0], sim.get_original_model(sim)(x)[0])
    with pytest.raises(ValueError, match="left.*cannot be int8: it is excluded from"):
        sim.apply_precisions(before)
    configurator = MixedPrecisionConfigurator(sim)
    configurator.set_precision("right", None, {"weight": "int4"})
    with pytest.raises(ValueError, match="'right.weight' cannot be int4: it is excl"):
        configurator.apply(log_file=None)
    assert sim.precisions().count("fp32") == 3


def test_excluding_a_container_excludes_what_is_inside(sim, network, images):
    sim.exclude_layers_from_quantization([sim.model])
    assert list(sim.named_quantizers()) == []
    assert torch.equal(sim.model(images), network(images))
