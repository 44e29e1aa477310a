# SPDX-License-Identifier: BSD-3-Clause
"""Small models and their simulations, for the tests of manual mixed precision."""

from __future__ import annotations

import torch

from aimetpp import QuantizationSimModel
from aimetpp.mixed_precision import MixedPrecisionConfigurator


class Block(torch.nn.Module):
    """conv+relu with a residual add written as `+`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 4, 3, padding=1)
        self.relu = torch.nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.conv(x)) + x


class Net(torch.nn.Module):
    """conv1+bn1+relu1 -> {block, conv3} -> cat -> pool -> flat -> fc."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = torch.nn.BatchNorm2d(4)
        self.relu1 = torch.nn.ReLU()
        self.block = Block()
        self.conv3 = torch.nn.Conv2d(4, 4, 1)
        self.pool = torch.nn.AdaptiveMaxPool2d(2)
        self.flat = torch.nn.Flatten()
        self.fc = torch.nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        y = torch.cat([self.block(x), self.conv3(x)], 1)
        return self.fc(self.flat(self.pool(y)))


class TwoInTwoOut(torch.nn.Module):
    """Inputs (a, [b, c]) -> {"sum": ..., "parts": (left, right)}."""

    def __init__(self) -> None:
        super().__init__()
        self.left = torch.nn.Linear(4, 4)
        self.right = torch.nn.Linear(4, 4)
        self.third = torch.nn.Linear(4, 4)

    def forward(self, a: torch.Tensor, rest: list[torch.Tensor]) -> dict:
        left, right, third = self.left(a), self.right(rest[0]), self.third(rest[1])
        return {"sum": left * right * third, "parts": (left, right)}


class Embedder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(10, 4)
        self.fc = torch.nn.Linear(4, 4)

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.embed(ids) + x)


def make_sim(model: torch.nn.Module | None = None, dummy: object = None, **kwargs):
    torch.manual_seed(0)
    model = (model or Net()).eval()
    dummy = torch.randn(2, 3, 8, 8) if dummy is None else dummy
    return QuantizationSimModel(model, dummy, **kwargs)


def two_in_two_out():
    x = torch.randn(2, 4)
    return make_sim(TwoInTwoOut(), (x, [x + 1, x + 2]))


def changed(sim) -> dict[str, str]:
    """First site of each quantizer that is not int8 -> its precision."""
    return {
        sim.graph.site_name(spec.sites[0]): precision
        for spec, precision in zip(
            sim.placement.quantizers, sim.precisions(), strict=True
        )
        if precision != "int8"
    }


def apply_one(sim, *args, strict: bool = True, **kwargs):
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision(*args, **kwargs)
    return mmp.apply(None, strict=strict)
