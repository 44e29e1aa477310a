# SPDX-License-Identifier: BSD-3-Clause
"""Masks of attention that come, or stay away, after the trace."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aimetpp.quantsim import QuantizationSimModel


def tokens():
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


def site_names(sim):
    return [site.name for site in sim.sites() if site.quantizer is not None]


class SelfAttention(nn.Module):
    """Attention and a residual connection; the mask may be left out."""

    def __init__(self, attend):
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.attend = attend

    def forward(self, x, mask=None):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(self.attend(q, k, v, mask)) + x


def baddbmm_attention(q, k, v, mask):
    scores = torch.bmm(q, k.mT) if mask is None else torch.baddbmm(mask, q, k.mT)
    return scores.softmax(-1) @ v


def hidden_keys(value, dtype=torch.float32):
    hidden = torch.arange(5) >= torch.tensor([[5], [3]])
    return torch.zeros(2, 5, 5, dtype=dtype).masked_fill(hidden[:, None], value)


ATTENTIONS = [F.scaled_dot_product_attention, baddbmm_attention]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("attend", ATTENTIONS)
def test_a_mask_may_come_after_the_trace(attend, dtype):
    model, x = SelfAttention(attend).eval().to(dtype), tokens().to(dtype)
    mask = hidden_keys(torch.finfo(dtype).min, dtype)
    results = []
    for dummy_input in ((x,), (x, mask)):
        sim = QuantizationSimModel(model, dummy_input)
        assert site_names(sim)[-1] == "/add_0"
        sim.compute_encodings(lambda m: m(x, mask))
        results.append(sim.model(x, mask))
    assert torch.equal(*results)


@pytest.mark.parametrize("attend", ATTENTIONS)
def test_a_mask_may_stay_away_after_the_trace(attend):
    model, x = SelfAttention(attend).eval(), tokens()
    results = []
    for dummy_input in ((x,), (x, hidden_keys(float("-inf")))):
        sim = QuantizationSimModel(model, dummy_input)
        sim.compute_encodings(lambda m: m(x))
        results.append(sim.model(x))
    assert torch.equal(*results)


@pytest.mark.parametrize("attend", ATTENTIONS)
def test_a_bias_that_was_not_traced_is_an_error(attend):
    bias = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(1))
    sim = QuantizationSimModel(SelfAttention(attend).eval(), tokens())
    sim.compute_encodings(lambda m: m(tokens()))
    with pytest.raises(RuntimeError, match="'add_bias' in the root module .* traced"):
        sim.model(tokens(), bias)


def test_padding_may_come_after_the_trace():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model, x = nn.TransformerEncoder(layer, 2).eval(), tokens()
    padding = hidden_keys(1.0)[:, 0] == 1
    results = []
    for padded in ({}, {"src_key_padding_mask": padding}):
        sim = QuantizationSimModel(model, {"src": x, **padded})
        sim.compute_encodings(lambda m: m(x, src_key_padding_mask=padding))
        results.append(sim.model(x, src_key_padding_mask=padding))
    assert torch.equal(*results)
