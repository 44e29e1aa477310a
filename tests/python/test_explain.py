# SPDX-License-Identifier: BSD-3-Clause
"""What a simulation says of why something is quantized, or not."""

import json
import warnings

import pytest
import torch
from torch import nn

from aimetpp.common.quantsim_config.utils import (
    get_path_for_per_channel_config,
    get_path_for_per_tensor_config,
)
from aimetpp.quantsim import QuantizationSimModel


class Net(nn.Module):
    """A supergroup, a view, a constant factor, attention's softmax, an unused layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.skip = nn.Identity()
        self.unused = nn.Linear(4, 4)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        y = self.pool(self.relu(self.bn(self.conv(x))))
        y = self.fc(self.skip(y).flatten(2).transpose(1, 2))
        return torch.softmax(y / 8, dim=-1)


@pytest.fixture
def sim():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    sim = QuantizationSimModel(Net().eval(), x)
    sim.compute_encodings(lambda m: m(x))
    return sim


@pytest.mark.parametrize(
    ("site", "state", "last_rule"),
    [
        ("conv.input.0", "quantized, int8, asymmetric", "(model input 0): on"),
        ("conv.weight", "quantized, int8, symmetric, per-channel axis 0", "axis 0"),
        ("conv.bias", "rounded, int32", "params: bias.is_quantized: off"),
        ("conv", "not quantized", "[Conv, Relu]: off: the result of the chain is at"),
        ("bn.weight", "not quantized", "bn folds into conv: off: part of conv"),
        ("relu.input.0", "not quantized", "the result of the chain is at relu"),
        ("relu", "quantized, int8", "as it was: result of the chain"),
        ("pool", "on the grid of relu", "off: max_pool2d keeps the grid of its input"),
        ("fc.input.0", "on the grid of relu", "off: quantized where it is made"),
        ("/div_0", "on the grid of fc", "off: the grid of fc times 0.125"),
        ("/softmax_0", "quantized, int8", "ops.is_output_quantized: on"),
    ],
)
def test_every_kind_of_site(sim, site, state, last_rule):
    # The name of an output may also be that of its module.
    (found,) = [s for s in sim.sites() if s.name == site]
    explanation = sim.explain(found)
    first, *rules = str(explanation).splitlines()
    assert first.startswith(f"{site}: ") and state in first
    assert last_rule in rules[-1]
    assert explanation.enabled is first.startswith(f"{site}: quantized")


def test_modules_say_it_of_all_that_is_inside(sim):
    whole = sim.explain(sim.model)
    assert str(whole).startswith(
        f"the model: {sum(p.enabled for p in whole.parts)} of "
    )
    assert {part.site for part in whole.parts} == {site.name for site in sim.sites()}
    relu = sim.explain(sim.model.relu)
    assert relu.enabled and "relu: 1 of 2 sites quantized" in str(relu)


@pytest.mark.parametrize("name", ["unused", "skip"])
def test_modules_without_sites_say_so(sim, name):
    explanation = sim.explain(name)
    assert not explanation.enabled and explanation.parts == ()
    assert "off: it makes and reads no tensor in the traced forward" in str(explanation)


def test_what_was_turned_off_since_is_told_apart(sim):
    sim.exclude_layers_from_quantization([sim.model.fc])
    explanation = sim.explain("fc.weight")
    assert explanation.enabled
    assert "not quantized: turned off since the simulation was built" in str(
        explanation
    )


# -- the shipped configs ------------------------------------------------------


def test_default_per_tensor_has_one_encoding_per_weight():
    x = torch.randn(2, 3, 4, 4)
    shapes = {
        name: tuple(
            QuantizationSimModel(Net().eval(), x, config_file=name)
            .model.conv.param_quantizers["weight"]
            .min.shape
        )
        for name in ("default", "default_per_tensor")
    }
    assert shapes == {"default": (4, 1, 1, 1), "default_per_tensor": ()}


def test_the_accelerator_example_warns_of_ops_without_a_kernel():
    x = torch.randn(2, 3, 4, 4)
    config = "accelerator_example"
    with pytest.warns(RuntimeWarning, match=r"1 ops .*softmax_0: .*int8 output.*int16"):
        sim = QuantizationSimModel(Net().eval(), x, config_file=config)
    softmax = sim.functional_quantizers["/softmax_0"]
    assert (softmax.fixed_min, softmax.fixed_max) == (0.0, 1.0)
    assert "restricted to int16/any" in str(sim.explain("/softmax_0"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        QuantizationSimModel(Net().eval(), x, config_file=config, default_output_bw=16)


def test_shipped_configs_under_the_reference_s_names():
    x = torch.randn(2, 3, 4, 4)
    for path, rank in (
        (get_path_for_per_channel_config(), 4),
        (get_path_for_per_tensor_config(), 0),
    ):
        sim = QuantizationSimModel(Net().eval(), x, config_file=path)
        assert sim.model.conv.param_quantizers["weight"].min.dim() == rank


def test_a_config_error_names_the_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"defaults": {"ops": {}, "params": {}}}))
    with pytest.raises(ValueError, match=r"mine\.json: \$: .params. is missing"):
        QuantizationSimModel(Net().eval(), torch.randn(2, 3, 4, 4), config_file=path)
