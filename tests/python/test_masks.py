# SPDX-License-Identifier: BSD-3-Clause
"""Masks of attention scores widen no range, and what they hide stays hidden."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aimetpp.export.torchscript import trace_simulation
from aimetpp.quantization import FloatQuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel

LOWEST = torch.finfo(torch.float32).min
LENGTH = 12


def tokens(seed=0, batch=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, LENGTH, 32, generator=generator)


def keep(batch=4):
    """1 where a token counts: samples of different lengths."""
    lengths = torch.tensor([LENGTH, 9, 7, 10])[:batch]
    return (torch.arange(LENGTH) < lengths[:, None]).long()


def hide(masked, value):
    return torch.zeros(masked.shape).masked_fill(masked, value)


class Block(nn.Module):
    """Self-attention of 4 heads whose scores `apply` masks: (scores, keep, self)."""

    def __init__(self, apply):
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.relative = nn.Parameter(torch.randn(4, LENGTH, LENGTH))
        future = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        self.register_buffer("future", future)
        self.register_buffer("window", hide(future, -100.0))
        self.register_buffer("slopes", hide(future, float("-inf")) - 0.5)
        self.apply_mask = apply
        self.probabilities = None

    def forward(self, x, keep):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4).unbind()
        scores = self.apply_mask(3 * q @ k.transpose(-2, -1), keep[:, None, None], self)
        probabilities = F.softmax(scores, dim=-1)
        if not torch.compiler.is_compiling():
            self.probabilities = probabilities
        return self.out((probabilities @ v).transpose(1, 2).flatten(2))


def bert(scores, keep, block):
    return scores + (1.0 - keep.to(scores.dtype)) * LOWEST


def gpt(scores, keep, block):
    return torch.where(block.future, torch.full([], LOWEST), scores)


def old_gpt(scores, keep, block):
    seen = (~block.future).to(scores.dtype)
    return scores * seen - 1e4 * (1 - seen)


def t5(scores, keep, block):
    return scores + (block.relative + (1.0 - keep.to(scores.dtype)) * LOWEST)


def in_place(scores, keep, block):
    scores += block.relative
    scores += hide(keep == 0, float("-inf"))
    return scores


MASKS = {
    "none": lambda scores, keep, block: scores,
    "bias": lambda scores, keep, block: scores + block.relative,
    "bert": bert,
    "fill": lambda scores, keep, block: scores.masked_fill(block.future, LOWEST),
    "fill_then_scale": lambda s, keep, block: s.masked_fill(block.future, -1e4) / 4,
    "gpt": gpt,
    "old_gpt": old_gpt,
    "swin": lambda scores, keep, block: scores + block.relative + block.window,
    "window": lambda scores, keep, block: block.window + scores,
    "slopes": lambda scores, keep, block: scores + block.slopes,
    "t5": t5,
    "in_place": in_place,
}
BASELINES = {name: "none" for name in MASKS} | {
    name: "bias" for name in ("swin", "t5", "in_place", "slopes")
}


def simulated(model, *inputs, bits=8):
    sim = QuantizationSimModel(
        model.eval(), inputs, default_output_bw=bits, default_param_bw=bits
    )
    sim.compute_encodings(lambda m: m(*inputs))
    return sim


def sqnr(model, sim, x, keep):
    kept = keep.bool()
    with torch.no_grad():
        expected, result = model(x, keep)[kept], sim.model(x, keep)[kept]
    noise = (expected - result).double().square().sum()
    return float(10 * torch.log10(expected.double().square().sum() / noise))


@pytest.mark.parametrize("mask", MASKS)
def test_a_masked_block_keeps_its_sqnr(mask):
    model, bare = Block(MASKS[mask]), Block(MASKS[BASELINES[mask]])
    sim = simulated(model, tokens(), keep())
    baseline = sqnr(bare, simulated(bare, tokens(), keep()), tokens(), keep())
    assert baseline > 25
    assert sqnr(model, sim, tokens(), keep()) > baseline - 2
    hidden = model.probabilities == 0
    assert hidden.any() == (mask not in ("none", "bias"))
    assert (sim.model.probabilities[hidden] == 0).all()


def test_the_mask_itself_has_no_quantizers():
    sim = simulated(Block(t5), tokens(), keep())
    on = [site.name for site in sim.sites() if site.quantizer is not None]
    scores = ["/matmul_0", "/add_0.relative", "/add_0", "/add_1", "/softmax_0"]
    assert on[on.index("/matmul_0") : on.index("/matmul_1")] == scores
    assert not sim.uncalibrated()
    assert "off: a mask" in str(sim.explain("/mul_1"))


def test_padding_may_come_after_the_simulation_was_built():
    for mask in (bert, t5, in_place):
        model, full = Block(mask), torch.ones_like(keep())
        sim = QuantizationSimModel(model.eval(), (tokens(), full))
        calibration = full, keep()
        sim.compute_encodings(
            lambda m, data: [m(tokens(), k) for k in data], calibration
        )
        assert sqnr(model, sim, tokens(), keep()) > 27
        hidden = (keep() == 0)[:, None, None].expand_as(sim.model.probabilities)
        assert (sim.model.probabilities[hidden] == 0).all()


def test_a_float_mask_as_model_input():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block(lambda scores, mask, block: scores + mask)

        def forward(self, x, mask):
            return self.block(x, mask)

    mask = hide(keep() == 0, float("-inf"))
    sim = simulated(Masked(), tokens(), mask)
    with torch.no_grad():
        error = (sim.model(tokens(), mask) - Masked()(tokens(), mask)).abs().max()
    assert error < 0.1
    changed = tokens() + 100 * (keep() == 0)[..., None]
    same = sim.model(changed, mask)[keep().bool()]
    assert torch.equal(same, sim.model(tokens(), mask)[keep().bool()])


def attend(query, mask):
    return F.scaled_dot_product_attention(query, query, query, mask)


@pytest.mark.parametrize("kind", ["bool", "float", "bias"])
def test_masks_of_scaled_dot_product_attention(kind):
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.child = nn.Identity()
            bias = hide(torch.ones(LENGTH, LENGTH).triu(1) > 0, LOWEST)
            self.register_buffer("bias", bias + torch.randn(LENGTH, LENGTH).tril())

        def forward(self, x, keep):
            seen = keep[:, None].bool().expand(-1, LENGTH, -1)
            masks = {
                "bool": seen,
                "float": hide(~seen, float("-inf")),
                "bias": self.bias.masked_fill(~seen, float("-inf")),
            }
            return attend(x, masks[kind])

    torch.manual_seed(0)
    model = Attend()
    lengths = keep()
    lengths[3] = 0  # a sample without any token: zeros, not NaN
    sim = simulated(model, tokens(), lengths)
    expected = model(tokens(), lengths)
    assert (expected[3] == 0).all()
    result = sim.model(tokens(), lengths)
    assert (result[3] == 0).all()
    noise = (expected - result).square().mean() / expected.square().mean()
    assert noise < 10**-3
    changed = tokens() + 100 * (lengths == 0)[..., None]
    seen = lengths.bool()
    assert torch.equal(sim.model(changed, lengths)[:3][seen[:3]], result[:3][seen[:3]])


@pytest.mark.parametrize("need_weights", [True, False])
def test_masks_of_multi_head_attention(need_weights):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

        def forward(self, x, keep):
            mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)
            return self.attention(
                x, x, x, hide(keep == 0, float("-inf")), need_weights, mask
            )[0]

    model = Attention()
    sim = simulated(model, tokens(), keep())
    assert sqnr(model, sim, tokens(), keep()) > 25
    result = sim.model(tokens(), keep())
    changed = tokens()
    changed[:, 6:] += 3  # the future of the first six tokens
    with torch.no_grad():
        assert torch.equal(sim.model(changed, keep())[:, :6], result[:, :6])


def test_float_formats_keep_masked_scores():
    sim = simulated(Block(t5), tokens(), keep())
    sim.apply_precisions(["fp16"] * len(sim.precisions()))
    model = Block(t5)
    padded = keep()
    padded[0] = 0  # all masked: the lowest number must not become infinite
    with torch.no_grad():
        result, expected = sim.model(tokens(), padded), model(tokens(), padded)
    assert torch.isfinite(result).all()
    torch.testing.assert_close(result, expected, atol=0.02, rtol=0)
    quantizer = FloatQuantizeDequantize(torch.float16)
    quantizer.masked_below = -1000.0
    x = torch.tensor([LOWEST, 0.1])
    assert quantizer(x)[0] == LOWEST
    assert quantizer(x)[1] == x[1].half().float()


@pytest.mark.parametrize("mask", ["t5", "bert", "slopes", "gpt"])
def test_masked_models_run_everywhere(mask):
    inputs = tokens(), keep()
    sim = simulated(Block(MASKS[mask]), *inputs)
    for portable in (False, True):
        trace_simulation(sim, portable=portable)
    with torch.no_grad():
        expected = sim.model(*inputs)
        exported = torch.export.export(sim.model, inputs).module()
        assert torch.equal(exported(*inputs), expected)
    sim.model(*inputs).square().sum().backward()
    for name, parameter in sim.model.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), name


def test_compile_with_masked_scores():
    torch._dynamo.reset()
    sim = simulated(Block(t5), tokens(), keep())
    with torch.no_grad():
        expected = sim.model(tokens(), keep())
        compiled = torch.compile(sim.model, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(tokens(), keep()), expected)
    torch._dynamo.reset()


@pytest.mark.parametrize("mask", ["t5", "bert", "slopes"])
def test_onnx_files_mask_as_the_simulation_does(mask):
    onnx_running = pytest.importorskip("onnx_running")
    from aimetpp.export.onnx import build_qdq_model

    sim = simulated(Block(MASKS[mask]), tokens(), keep())
    with torch.no_grad():
        expected = sim.model(tokens(), keep())
    exported = build_qdq_model(sim, (tokens(), keep()))
    feeds = {"x": tokens().numpy(), "keep": keep().numpy()}
    read = [node.name for node in exported.model.graph.input]
    result = onnx_running.run(exported.model, {name: feeds[name] for name in read})[0]
    step = sim.model.out.output_quantizers[0].get_scale().item()
    # Values on the edge between two steps round either way, here and there.
    steps = np.abs(result - expected.numpy()) / step
    assert steps.max() < 3.5
    assert steps.mean() < 0.1


def test_ordinary_values_are_no_masks():
    class Ordinary(nn.Module):
        """Low numbers and zeros that are added on no way to a softmax, or learned."""

        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(32, 32)
            self.register_buffer("means", torch.tensor([-123.0, -117.0] * 16))
            self.zeros = nn.Parameter(torch.zeros(32))

        def forward(self, x):
            y = self.fc(x + self.means)
            return F.softmax(y * 0.1 + self.zeros.abs(), -1)

    sim = simulated(Ordinary(), tokens())
    on = {site.name for site in sim.sites() if site.quantizer is not None}
    assert {"/add_0", "/add_0.input.1", "/add_1"} <= on
    assert all(q.masked_below is None for _, q in sim.named_quantizers())
