# SPDX-License-Identifier: BSD-3-Clause
"""What is known of values without computing: scalar buffers, nearest elements."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aimetpp.quantsim import QuantizationSimModel


def enabled(model, x):
    sim = QuantizationSimModel(model, x)
    sim.compute_encodings(lambda m: m(x))
    return [site.name for site in sim.sites() if site.quantizer is not None]


class Scaled(nn.Module):
    """A linear layer, and its result times a buffer or a parameter."""

    def __init__(self, factor, learned=False, swapped=False):
        super().__init__()
        self.fc, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        if learned:
            self.factor = nn.Parameter(factor)
        else:
            self.register_buffer("factor", factor)
        self.swapped = swapped

    def forward(self, x):
        y = self.fc(x)
        return self.last(self.factor * y if self.swapped else y * self.factor)


BETWEEN = ["fc.input.0", "fc.weight", "fc"], ["last.weight", "last"]


@pytest.mark.parametrize(
    ("model", "product"),
    [
        (Scaled(torch.tensor(0.5)), []),
        (Scaled(torch.tensor(0.5), swapped=True), []),
        (Scaled(torch.tensor([0.5])), []),
        (Scaled(torch.tensor(-0.5)), ["/mul_0"]),
        (Scaled(torch.tensor([0.5, 1.0, 2.0, 3.0])), ["/mul_0.input.1", "/mul_0"]),
        (Scaled(torch.tensor(0.5), learned=True), ["/mul_0"]),
        (Scaled(torch.ones(4), learned=True), ["/mul_0.factor", "/mul_0"]),
    ],
)
def test_products_with_buffers_and_parameters(model, product):
    first, last = BETWEEN
    assert enabled(model, torch.randn(3, 4)) == [*first, *product, *last]


@pytest.mark.parametrize(
    ("mode", "moves"), [("nearest", True), ("nearest-exact", True), ("bilinear", False)]
)
@pytest.mark.parametrize("functional", [True, False])
def test_interpolation_to_the_nearest_element_moves_data(mode, moves, functional):
    class Resized(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.up = nn.Identity() if functional else nn.Upsample(None, 2, mode)

        def forward(self, x):
            y = self.up(self.conv(x))
            return F.interpolate(y, scale_factor=2, mode=mode) if functional else y

    names = enabled(Resized(), torch.randn(1, 3, 8, 8))
    resized = [] if moves else ["/interpolate_0" if functional else "up"]
    assert names == ["conv.input.0", "conv.weight", "conv", *resized]
