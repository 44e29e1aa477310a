# SPDX-License-Identifier: BSD-3-Clause
"""Quantized weights are kept between forwards, and never used when out of date."""

import copy
import io

import pytest
import torch
from torch import nn

from aimetpp.nn.wrap import kept_weight_bytes, release_kept_weights
from aimetpp.quantsim import QuantizationSimModel


def data():
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def sim():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    simulation = QuantizationSimModel(
        model, data(), default_param_bw=3, int32_bias=False
    )
    simulation.kept_weights = "all"
    simulation.compute_encodings(lambda m: m(data()))
    with torch.no_grad():
        simulation.model(data())
    return simulation


def kept(module):
    return module._aimetpp.weights.bytes


def forward(sim):
    """The simulation's output, checked against weights quantized anew."""
    with torch.no_grad():
        y = sim.model(data())
        assert torch.equal(copy.deepcopy(sim.model)(data()), y)
    return y


def test_kept_until_something_changes(sim):
    layer = sim.model[0]
    assert kept(layer) == 8 * 6 * 4
    first = layer._aimetpp.weights.get(
        "weight", layer.param_quantizers["weight"], layer.weight
    )
    assert first.grad_fn is not None  # with gradients: made for this one call
    assert kept(layer) == 0
    forward(sim)
    with torch.no_grad():
        got = [
            layer._aimetpp.weights.get(
                "weight", layer.param_quantizers["weight"], layer.weight
            )
            for _ in range(2)
        ]
    assert got[0].data_ptr() == got[1].data_ptr()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.weight.data.mul_(0.5),
        lambda m: m.weight.data[3, 2].sub_(2.0),
        lambda m: m.weight.data.copy_(m.weight.data.flip(0)),
        lambda m: setattr(m.weight, "data", m.weight.data * 2),
        lambda m: m.weight.numpy().__setitem__((1, 1), 2.0),
        lambda m: m.weight.add_(0.3),
        lambda m: setattr(m, "weight", nn.Parameter(m.weight * 3)),
        lambda m: m.load_state_dict({"weight": m.weight * -1}, strict=False),
        lambda m: m.load_state_dict(
            {"weight": m.weight * -1}, strict=False, assign=True
        ),
        lambda m: setattr(m.param_quantizers["weight"], "bitwidth", 2),
        lambda m: setattr(m.param_quantizers["weight"], "symmetric", False),
        lambda m: m.param_quantizers["weight"].set_range(-0.1, 0.1),
        lambda m: m.param_quantizers["weight"].max.data.mul_(0.5),
        lambda m: m.param_quantizers.__setitem__("weight", None),
    ],
)
def test_every_change_is_seen(sim, change):
    def quantized():
        with torch.no_grad():
            forward(sim)
            leaf.__dict__["_aimetpp_running"] = True  # as its own forward reads it
            weight = leaf.weight
            leaf.__dict__["_aimetpp_running"] = False
        return weight

    leaf = sim.model[0]
    before = quantized().clone()
    with torch.no_grad():
        change(leaf)
        quantizer = leaf.param_quantizers["weight"]
        expected = leaf.weight if quantizer is None else quantizer(leaf.weight)
    assert torch.equal(quantized(), expected) and not torch.equal(before, expected)


def test_an_optimizer_step_is_seen(sim):
    before = forward(sim)
    optimizer = torch.optim.SGD(sim.model.parameters(), lr=0.5)
    sim.model(data()).square().sum().backward()
    assert kept(sim.model[0]) == 0
    optimizer.step()
    assert not torch.equal(forward(sim), before)


def test_a_module_that_writes_into_its_weight_does_not_poison_the_next_call():
    class Clamps(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, self.weight.mul_(0.5), self.bias)

    x = data()
    sim = QuantizationSimModel(nn.Sequential(Clamps(8, 4)), x)
    with torch.no_grad():
        sim.kept_weights = "all"
        sim.compute_encodings(lambda m: m(x))
        weight = sim.model[0].weight.clone()
        # The write goes to the quantized copy, so the weight stays as it is.
        first = sim.model(x)
        assert torch.equal(sim.model(x), first)
        assert torch.equal(sim.model[0].weight, weight)


def test_a_returned_weight_stays_what_it_was(sim):
    layer = sim.model[0]
    quantizer = layer.param_quantizers["weight"]
    with torch.no_grad():
        first = layer._aimetpp.weights.get("weight", quantizer, layer.weight)
        value = first.clone()
        layer.weight.mul_(-1)
        second = layer._aimetpp.weights.get("weight", quantizer, layer.weight)
    assert torch.equal(first, value) and not torch.equal(second, value)


def test_inference_mode_leaves_ordinary_tensors(sim):
    sim.model[0]._aimetpp.weights.clear()
    with torch.inference_mode():
        expected = sim.model(data())
    weights = sim.model[0]._aimetpp.weights
    quantizer = sim.model[0].param_quantizers["weight"]
    with torch.no_grad():
        kept_weight = weights.get("weight", quantizer, sim.model[0].weight)
    assert not kept_weight.is_inference()
    assert torch.equal(forward(sim), expected)


def test_copies_and_files_hold_no_kept_weights(sim):
    assert kept(sim.model[0]) > 0
    assert kept(copy.deepcopy(sim.model)[0]) == 0
    buffer = io.BytesIO()
    torch.save(sim.model, buffer)
    buffer.seek(0)
    assert kept(torch.load(buffer, weights_only=False)[0]) == 0


def test_traces_hold_the_op_not_the_kept_weight(sim):
    with torch.no_grad():
        traced = torch.jit.trace(sim.model, data())
    names = [node.kind() for node in traced.inlined_graph.nodes()]
    assert names.count("aimetpp::fake_quantize") == sum(
        1 for site in sim.sites() if site.quantizer is not None
    )


def test_other_tensors_in_the_parameters_place(sim):
    weight = sim.model[0].weight * 0.5
    with torch.no_grad():
        y = torch.func.functional_call(sim.model, {"0.weight": weight}, data())
        sim.model[0].weight.copy_(weight)
    assert torch.equal(forward(sim), y)


def test_bytes_and_release(sim):
    assert kept_weight_bytes(sim.model) == (8 * 6 + 6 * 3) * 4
    release_kept_weights(sim.model)
    assert kept_weight_bytes(sim.model) == 0
    forward(sim)
    assert kept_weight_bytes(sim.model) == (8 * 6 + 6 * 3) * 4


class Mixed(nn.Module):
    """A convolution that uses each weight at 16 x 16 places, a linear layer on few
    rows, a recurrent one.
    """

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.fc = nn.Linear(6, 5)
        self.rnn = nn.GRU(5, 4, batch_first=True)

    def forward(self, x):
        return self.rnn(self.fc(self.conv(x).mean((2, 3)))[:, None])[0]


def test_only_what_takes_time_to_make_again_is_kept():
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    sim = QuantizationSimModel(Mixed(), x)
    sim.compute_encodings(lambda m: m(x))
    assert sim.kept_weights == "auto"
    results = {}
    for keep in ("auto", "none", "all"):
        sim.kept_weights = keep
        with torch.no_grad():
            results[keep] = [sim.model(x) for _ in range(3)]
        on = {
            name: kept(getattr(sim.model, name)) > 0 for name in ("conv", "fc", "rnn")
        }
        many = {"conv": keep == "all", "fc": keep != "none", "rnn": keep != "none"}
        assert on == many, keep
        assert all(torch.equal(y, results["auto"][0]) for y in results[keep])
    assert copy.deepcopy(sim).kept_weights == "all"
    assert sim.memory_report()["cached_weights"] == kept_weight_bytes(sim.model)
    with pytest.raises(ValueError, match='"auto", "all" or "none", got "some"'):
        sim.kept_weights = "some"


def test_weights_that_are_not_kept_share_memory_only_when_nobody_holds_them():
    class Holds(nn.Module):
        """Three layers, the first of which gives its weight away."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList(Giving(8, 8) for _ in range(3))

        def forward(self, x):
            weights = []
            for layer in self.layers:
                x, weight = layer(x)
                weights.append(weight)
            return x, weights

    class Giving(nn.Linear):
        def forward(self, x):
            weight = self.weight
            return nn.functional.linear(x, weight, self.bias), weight

    sim = QuantizationSimModel(Holds(), data())
    sim.compute_encodings(lambda m: m(data()))
    sim.kept_weights = "none"
    with torch.no_grad():
        y, weights = sim.model(data())
        again, _ = sim.model(data())
    assert torch.equal(y, again)
    for layer, weight in zip(sim.model.layers, weights, strict=True):
        given = layer.param_quantizers["weight"](layer.weight)
        quantizer = layer.output_quantizers[1]
        assert torch.equal(weight, given if quantizer is None else quantizer(given))
    with torch.no_grad():  # a leaf on its own: its weights' memory is not kept
        layer = sim.model.layers[2]
        alone = [layer(data())[0] for _ in range(2)]
    assert torch.equal(*alone)
