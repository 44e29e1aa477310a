# SPDX-License-Identifier: BSD-3-Clause
"""Quantized models under torch.compile and gradient checkpointing, parts of them on
their own, copies of them.
"""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from aimetpp.quantsim import QuantizationSimModel


def simulate(model, x, bits=4):
    sim = QuantizationSimModel(
        model.eval(), x, default_output_bw=bits, default_param_bw=bits
    )
    sim.compute_encodings(lambda m: m(x))
    return sim


def tokens():
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


# -- torch.compile ----------------------------------------------------------


class Calls(nn.Module):
    """A linear layer and a function of its result."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(8, 8)
        self.function = function

    def forward(self, x):
        return self.function(self.fc(x))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 1 - x,
        lambda x: 1 / (x + 9),
        lambda x: x**2,
        lambda x: x.unflatten(-1, (2, 4)) + 1,
        lambda x: F.max_pool1d(F.gelu(x), 2),
        lambda x: x.clone().mul_(2),
    ],
)
def test_functional_ops_compile(function):
    sim, x = simulate(Calls(function), tokens()), tokens()
    compiled = torch.compile(sim.model, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(x), sim.model(x))


@pytest.mark.parametrize("function", [F.hardswish, lambda x: torch.relu_(x.clone())])
def test_an_op_that_compile_hides_is_an_error(function):
    sim, x = simulate(Calls(function), tokens()), tokens()
    compiled = torch.compile(sim.model, fullgraph=True, backend="eager")
    with (
        pytest.raises(Exception, match="torch.compile did not show it"),
        torch.no_grad(),
    ):
        compiled(x)


def test_fused_encoder_layers_stay_quantized():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    sim, x = simulate(nn.TransformerEncoder(layer, 2), tokens()), tokens()
    with torch.no_grad():
        expected = sim.model(x)
        compiled = torch.compile(sim.model, fullgraph=True, backend="eager")
        assert torch.equal(compiled(x), expected)
        with sim.quantizers_off():
            assert not torch.allclose(sim.model(x), expected, atol=0.01)
    original = QuantizationSimModel.get_original_model(sim)
    assert original.layers[0].activation_relu_or_gelu == 1


# -- modules on their own ---------------------------------------------------


class Blocks(nn.Module):
    """Two blocks and a ReLU that both use; `reuse`: the first block twice."""

    def __init__(self, reuse, reentrant=False):
        super().__init__()
        torch.manual_seed(0)
        relu = nn.ReLU()
        self.first, self.second = (Block(relu) for _ in range(2))
        self.reuse, self.reentrant, self.recompute = reuse, reentrant, False

    def forward(self, x):
        for block in (self.first, self.first if self.reuse else self.second):
            if self.recompute:
                x = checkpoint(block, x, use_reentrant=self.reentrant)
            else:
                x = block(x)
        return x


class Block(nn.Module):
    def __init__(self, relu):
        super().__init__()
        self.fc, self.relu = nn.Linear(8, 8), relu

    def forward(self, x):
        return self.relu(self.fc(x) * 3) + x


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(reentrant):
    x = tokens().requires_grad_()
    sim = simulate(Blocks(reuse=False, reentrant=reentrant), x)

    def gradients():
        sim.model.zero_grad()
        sim.model(x).square().sum().backward()
        return {n: p.grad.clone() for n, p in sim.model.named_parameters()}

    expected = gradients()
    sim.model.recompute = True
    got = gradients()
    assert expected.keys() == got.keys() and len(got) > 10
    for name, gradient in expected.items():
        assert torch.equal(got[name], gradient), name


def test_checkpointing_a_reused_block_is_an_error():
    x = tokens()
    sim = simulate(Blocks(reuse=True), x)
    sim.model.recompute = True
    with pytest.raises(RuntimeError, match="module 'first'.*on its own.*2 times"):
        sim.model(x).sum().backward()


def test_parts_use_the_quantizers_of_their_place():
    x = tokens()
    sim = simulate(Blocks(reuse=False), x)
    middle = sim.model.first(x)
    assert torch.equal(sim.model.second(middle), sim.model(x))
    with pytest.raises(RuntimeError, match="module 'first.relu' was called on its own"):
        sim.model.first.relu(x)


def test_a_parameter_given_to_a_leaf():
    class Query(nn.Module):
        def __init__(self):
            super().__init__()
            self.query = nn.Parameter(torch.linspace(-1, 1, 8))
            self.fc = nn.Linear(8, 4)

        def forward(self, x):
            return self.fc(self.query) + self.fc(x)

    x = tokens()
    sim = simulate(Query(), x)
    (site,) = [s for s in sim.sites() if s.name.endswith(".query")]
    assert site.kind == "param"
    assert sim.model.fc.input_quantizers[0] is site.quantizer is not None
    assert (site.quantizer.min.item(), site.quantizer.max.item()) == pytest.approx(
        (-8 / 7, 1.0)
    )
    sim.model(x).sum().backward()
    assert sim.model.query.grad.abs().sum() > 0


# -- copies -----------------------------------------------------------------


def test_a_copied_simulation_is_independent():
    x = tokens()
    sim = simulate(Blocks(reuse=False), x)
    expected, before = sim.model(x), sim.precisions()
    copied = copy.deepcopy(sim)
    assert torch.equal(copied.model(x), expected)
    copied.apply_precisions(["int2"] * len(before))
    copied.compute_encodings(lambda m: m(5 * x))
    assert sim.precisions() == before
    assert torch.equal(sim.model(x), expected)
    assert not torch.equal(copied.model(x), expected)
    assert copied.model._aimetpp_sim() is copied


def test_a_simulation_is_saved_in_parts():
    sim = simulate(nn.Linear(8, 4), tokens())
    with pytest.raises(TypeError, match="save_precision_profile"):
        pickle.dumps(sim)


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU])
def test_recurrent_layers_keep_their_own_weights(cls):
    x = tokens()
    sim = simulate(cls(8, 4, batch_first=True), x)
    result = sim.model(x)[0]
    result.sum().backward()
    for weight in sim.model._flat_weights:
        assert isinstance(weight, nn.Parameter) and weight.grad is not None
    assert torch.equal(copy.deepcopy(sim.model)(x)[0], result)
    buffer = io.BytesIO()
    torch.save(sim.model, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(x)[0], result)
