# SPDX-License-Identifier: BSD-3-Clause
"""Attention functions and modules are simulated part by part."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aimetpp.export.torchscript import trace_simulation
from aimetpp.quantsim import QuantizationSimModel


def tokens(length=5, width=8, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, width, generator=generator)


def simulated(model, *inputs, bits=16, **options):
    """A calibrated simulation of a model in eval mode, and its dummy input."""
    sim = QuantizationSimModel(
        model.eval(), inputs, default_output_bw=bits, default_param_bw=bits, **options
    )
    sim.compute_encodings(lambda m: m(*inputs))
    return sim


def site_names(sim):
    return [site.name for site in sim.sites() if site.quantizer is not None]


class Function(nn.Module):
    """A model that calls one function; the Identity keeps it from being a leaf."""

    def __init__(self, function):
        super().__init__()
        self.child = nn.Identity()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


# -- scaled_dot_product_attention -------------------------------------------


def masks():
    some = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)) < 0.6
    some[0], some[1] = True, False  # all is seen, nothing is
    hidden = torch.zeros(4, 6).masked_fill(~some, float("-inf"))
    return {
        "none": None,
        "bool": some,
        "float": hidden,
        "batched": some.expand(2, 4, 4, 6),
        "keys": some[2:3],
        "bias": torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(2)),
    }


@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_attention_in_parts_equals_torch(mask, scale, key_heads):
    query, key, value = (
        torch.randn(2, heads, length, 8, generator=torch.Generator().manual_seed(seed))
        for seed, (heads, length) in enumerate([(4, 4), (key_heads, 6), (key_heads, 6)])
    )

    def attend(query, key, value):
        return F.scaled_dot_product_attention(
            query, key, value, masks()[mask], scale=scale, enable_gqa=key_heads != 4
        )

    sim = simulated(Function(attend), query, key, value)
    expected = attend(query, key, value)
    with sim.quantizers_off():
        torch.testing.assert_close(sim.model(query, key, value), expected)


@pytest.mark.parametrize("length", [3, 5, 8])
def test_causal_attention_equals_torch(length):
    query, key = tokens(5), tokens(length, seed=1)

    def attend(query, key):
        return F.scaled_dot_product_attention(query, key, key, is_causal=True)

    sim = simulated(Function(attend), query, key)
    with sim.quantizers_off():
        torch.testing.assert_close(sim.model(query, key), attend(query, key))


def test_a_causal_mask_and_another_one_are_refused():
    def attend(query):
        mask = torch.ones(5, 5, dtype=torch.bool)
        return F.scaled_dot_product_attention(query, query, query, mask, is_causal=True)

    with pytest.raises(RuntimeError, match="attn_mask must be None"):
        simulated(Function(attend), tokens())


def test_attention_drops_out():
    def attend(query, value):
        return F.scaled_dot_product_attention(query, query, value, None, 0.5)

    query, value = tokens(64, seed=2), torch.ones(2, 64, 1)
    sim = simulated(Function(attend), query, value)
    torch.manual_seed(0)
    result = sim.model(query, value)
    assert not torch.equal(result, sim.model(query, value))
    assert abs(result.mean() - 1) < 0.1


def test_attention_has_a_site_for_each_part():
    def attend(query, key, value):
        return F.scaled_dot_product_attention(query, key, value)

    sim = simulated(Function(attend), tokens(), tokens(6), tokens(6))
    assert site_names(sim) == [
        "/mul_0.input.0",  # times a constant: that leaves a grid a grid
        "/matmul_0.input.1",
        "/matmul_0",
        "/softmax_0",
        "/matmul_1.input.1",
        "/matmul_1",
    ]
    sources = {site.source.split(":")[0] for site in sim.sites()}
    assert sources == {"test_attention.py"}
    macs = {op.name: op.macs for op in sim.graph.ops if op.macs}
    assert macs == {"/matmul_0": 5 * 6 * 8, "/matmul_1": 5 * 6 * 8}


@pytest.mark.parametrize("options", [{}, {"alpha": 0.5}, {"beta": 2}, {"beta": 0}])
def test_a_sum_with_a_product_is_two_ops(options):
    def add(x, a, b):
        return torch.baddbmm(x, a, b, **options) + x.baddbmm(a, b, **options)

    inputs = tokens(5, 6), tokens(5, 8, seed=1), tokens(8, 6, seed=2)
    sim = simulated(Function(add), *inputs)
    assert {"/bmm_0", "/bmm_1"} <= set(site_names(sim))
    with sim.quantizers_off():
        torch.testing.assert_close(sim.model(*inputs), add(*inputs))


# -- multi-head attention ---------------------------------------------------


class Attention(nn.Module):
    """nn.MultiheadAttention, of x with itself or with another sequence."""

    def __init__(self, need_weights=False, **options):
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.need_weights = need_weights

    def forward(self, query, key=None, value=None, mask=None, padding=None):
        key = query if key is None else key
        value = key if value is None else value
        result, weights = self.attention(
            query,
            key,
            value,
            attn_mask=mask,
            key_padding_mask=padding,
            need_weights=self.need_weights,
        )
        return (result, weights) if self.need_weights else result


INPUTS = {
    "self": (tokens(),),
    "cross": (tokens(), tokens(6, seed=1)),
    "three": (tokens(), tokens(6, seed=1), tokens(6, seed=2)),
    "unbatched": (tokens()[0],),
}


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("extra", ["", "add_bias_kv", "add_zero_attn", "bias"])
def test_multi_head_attention_equals_torch(inputs, need_weights, extra):
    options = {extra: extra != "bias"} if extra else {}
    model = Attention(need_weights, **options)
    sim = simulated(model, *INPUTS[inputs])
    expected = model(*INPUTS[inputs])
    with sim.quantizers_off(), torch.no_grad():
        torch.testing.assert_close(sim.model(*INPUTS[inputs]), expected)
    torch.testing.assert_close(sim.model(*INPUTS[inputs]), expected, atol=2e-3, rtol=0)


def test_multi_head_attention_has_a_site_for_each_part():
    sim = simulated(Attention(need_weights=True), *INPUTS["self"])
    assert site_names(sim) == [
        "attention/linear_0.input.0",
        "attention/linear_0.attention.in_proj_weight",
        "attention/linear_0",
        "attention/bmm_0",
        "attention/softmax_0",
        "attention/bmm_1",
        "attention/linear_1.attention.out_proj.weight",
        "attention/linear_1",
        "attention/mean_0",
    ]
    assert not sim.uncalibrated()
    macs = {op.name: op.macs for op in sim.graph.ops if op.macs}
    assert macs == {
        "attention/linear_0": 5 * 8 * 24,
        "attention/bmm_0": 2 * 5 * 5 * 4,
        "attention/bmm_1": 2 * 5 * 5 * 4,
        "attention/linear_1": 5 * 8 * 8,
    }


@pytest.mark.parametrize(
    ("inputs", "options", "weights"),
    [
        ("self", {}, ["in_proj_weight"]),
        ("cross", {}, ["in_proj_weight[0:8]", "in_proj_weight[8:24]"]),
        (
            "three",
            {},
            [f"in_proj_weight[{first}:{first + 8}]" for first in (0, 8, 16)],
        ),
        (
            "three",
            {"kdim": 8, "vdim": 8},
            [f"in_proj_weight[{first}:{first + 8}]" for first in (0, 8, 16)],
        ),
    ],
)
def test_projections_have_quantized_weights(inputs, options, weights):
    model = Attention(**options)
    sim = simulated(model, *INPUTS[inputs], bits=4)
    params = [site for site in sim.sites() if site.kind == "param"]
    quantized = [s.name.split(".", 1)[1] for s in params if s.quantizer is not None]
    assert quantized == [
        *(f"attention.{weight}" for weight in weights),
        "attention.out_proj.weight",
    ]
    # Each row has the range that it would have in a weight of its own.
    rows = [
        site.quantizer.max.flatten()
        for site in params
        if site.quantizer is not None and "in_proj" in site.name
    ]
    weight = model.attention.in_proj_weight.detach()
    steps = torch.maximum(weight.amax(1) / 7, -weight.amin(1) / 8)
    torch.testing.assert_close(torch.cat(rows).detach(), 7 * steps)


def test_weights_of_separate_projections():
    model = Attention(kdim=6, vdim=7)
    inputs = tokens(), tokens(6, 6), tokens(6, 7)
    sim = simulated(model, *inputs)
    names = [name for name in site_names(sim) if name.endswith("_weight")]
    assert names == [
        f"attention/linear_{i}.attention.{x}_proj_weight" for i, x in enumerate("qkv")
    ]


# -- fused paths ------------------------------------------------------------


def encoder(**options):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 1)


def padding():
    hidden = torch.zeros(2, 5, dtype=torch.bool)
    hidden[1, 3:] = True
    return hidden


def test_an_encoder_is_simulated_in_eval_mode_without_gradients():
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = encoder()

        def forward(self, x, hidden):
            return self.encoder(x, src_key_padding_mask=hidden)

    sim = simulated(Padded(), tokens(), padding(), bits=4)
    assert {name.split("/")[-1] for name in site_names(sim)} > {"softmax_0", "matmul_1"}
    with_gradients = sim.model(tokens(), padding())
    with torch.no_grad():
        # The fused path would turn the padded input into a nested tensor.
        assert torch.equal(sim.model(tokens(), padding()), with_gradients)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_fused_path_is_back_afterwards(enabled):
    def fail(x):
        assert not torch.backends.mha.get_fastpath_enabled()
        if x.sum() > 1e6:
            raise ValueError("as asked")
        return x * 2

    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        sim = simulated(Function(fail), tokens())
        assert torch.backends.mha.get_fastpath_enabled() is enabled
        with pytest.raises(ValueError, match="as asked"):
            sim.model(tokens() + 1e6)
        assert torch.backends.mha.get_fastpath_enabled() is enabled
        with pytest.raises(RuntimeError, match="as asked"):
            simulated(Function(fail), tokens() + 1e6)
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


# -- every way to run and write it ------------------------------------------


class Heads(nn.Module):
    """Self-attention through scaled_dot_product_attention."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.options = options

    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind()
        y = F.scaled_dot_product_attention(q, k, v, mask, **self.options)
        return self.out(y.transpose(1, 2).flatten(2))


MODELS = {
    "sdpa": lambda: (Heads(), (tokens(),)),
    "causal": lambda: (Heads(is_causal=True), (tokens(),)),
    "bool": lambda: (Heads(), (tokens(), torch.ones(5, 5, dtype=torch.bool).tril())),
    "heads": lambda: (Attention(), (tokens(),)),
    "weights": lambda: (Attention(need_weights=True), (tokens(),)),
    "encoder": lambda: (encoder(), (tokens(),)),
}


@pytest.fixture
def forget_compiled():
    """What other tests compiled counts towards the recompilations of one function."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("forget_compiled")
@pytest.mark.parametrize("name", MODELS)
def test_compile(name):
    model, inputs = MODELS[name]()
    sim = simulated(model, *inputs, bits=4)
    with torch.no_grad():
        expected = sim.model(*inputs)
        compiled = torch.compile(sim.model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*inputs), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_torch_export(name):
    model, inputs = MODELS[name]()
    sim = simulated(model, *inputs, bits=4)
    with torch.no_grad():
        exported = torch.export.export(sim.model, inputs).module()
        torch.testing.assert_close(
            exported(*inputs), sim.model(*inputs), rtol=0, atol=0
        )


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_torchscript(name, portable):
    model, inputs = MODELS[name]()
    trace_simulation(simulated(model, *inputs, bits=4), portable=portable)


def test_attention_trains():
    sim = simulated(encoder(), tokens(), bits=8)
    sim.model.train()
    sim.model(tokens()).square().sum().backward()
    for name, parameter in sim.model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_products_of_attention_count_in_bit_ops_and_groups():
    sim = simulated(Heads(), tokens(), bits=8)
    products = 2 * 2 * 5 * 5 * 4
    assert sim.bit_ops() == 64 * (5 * 8 * 24 + products + 5 * 8 * 8)
    grouped = {n for group in sim.quantizer_groups() for _, n in group.to_list()}
    assert {"/matmul_0", "/softmax_0", "/matmul_1"} <= grouped
