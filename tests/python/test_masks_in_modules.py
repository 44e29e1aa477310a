# SPDX-License-Identifier: BSD-3-Clause
"""Masks that a user's module without children reads, and applies where nothing sees."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aimetpp.quantsim import QuantizationSimModel

LENGTH = 6


def tokens():
    return torch.randn(3, LENGTH, 8, generator=torch.Generator().manual_seed(0))


def mask(value):
    hidden = torch.arange(LENGTH) >= torch.tensor([[LENGTH], [4], [2]])
    return torch.zeros(hidden.shape).masked_fill(hidden, value)[:, None]


class Attention(nn.Module):
    """A leaf: it has parameters, and no module inside."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(24, 8) / 3)

    def forward(self, x, mask):
        q, k, v = F.linear(x, self.weight).chunk(3, -1)
        return torch.softmax(q @ k.transpose(-2, -1) + mask, -1) @ v


class AddMask(nn.Module):
    """A leaf that is nothing but the sum."""

    def forward(self, scores, mask):
        return scores + mask


class Apart(nn.Module):
    """Attention whose mask a leaf of its own adds."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.masking = nn.Linear(8, 24), AddMask()

    def forward(self, x, mask):
        q, k, v = self.qkv(x).chunk(3, -1)
        return torch.softmax(self.masking(q @ k.transpose(-2, -1), mask), -1) @ v


class Model(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention()

    def forward(self, x, mask):
        return self.attention(x, mask)


@pytest.mark.parametrize("attention", [Attention, Apart])
@pytest.mark.parametrize("value", [float("-inf"), torch.finfo().min, -1e4])
@pytest.mark.parametrize("late", [False, True])
def test_masks_of_modules_hide_what_they_hid(attention, value, late):
    model, inputs = Model(attention).eval(), (tokens(), mask(value))
    sim = QuantizationSimModel(model, (tokens(), mask(0.0)) if late else inputs)
    sim.compute_encodings(lambda m: m(*inputs))
    with torch.no_grad():
        expected, result = model(*inputs), sim.model(*inputs)
        noise = (expected - result).square().sum() / expected.square().sum()
        assert noise < 10**-3
        changed = tokens() + (mask(1.0) * 50).transpose(1, 2)
        again = sim.model(changed, inputs[1])
    seen = mask(1.0)[:, 0] == 0
    assert torch.equal(again[seen], result[seen])


def test_ordinary_inputs_of_modules_have_quantizers():
    class Scale(nn.Module):
        def forward(self, x, y):
            return x * y + x

    class Ordinary(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = Scale()

        def forward(self, x, y):
            return self.scale(x, y)

    low = torch.tensor([-100.0, 0.0, -90.0]).repeat(2, 1)  # not low enough
    sim = QuantizationSimModel(Ordinary(), (torch.randn(2, 3), low))
    on = [site.name for site in sim.sites() if site.quantizer is not None]
    assert on == ["scale.input.0", "scale.input.1", "scale"]
    assert all(q.masked_below is None for _, q in sim.named_quantizers())
