# SPDX-License-Identifier: BSD-3-Clause
"""A small network to train, its data, and training as the tests of it do."""

from __future__ import annotations

import torch
from torch import nn

from aimetpp.quantsim import QuantizationSimModel

# What training may change of a range.
LEARNING = ["min_max", "scale", None]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn(self.conv(x)))
        return self.fc((self.body(x) + x).mean((2, 3)))


def batches(count: int = 8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [
        (
            torch.randn(16, 2, 6, 6, generator=generator),
            torch.randint(0, 3, (16,), generator=generator),
        )
        for _ in range(count)
    ]


def make_sim(learns: str | None = "min_max", bits: int = 4) -> QuantizationSimModel:
    torch.manual_seed(0)
    sim = QuantizationSimModel(
        Net(),
        torch.zeros(2, 2, 6, 6),
        default_output_bw=bits,
        default_param_bw=bits,
    )
    sim.learn_ranges(learns, learns)
    sim.compute_encodings(lambda model: [model(x) for x, _ in batches(2)])
    sim.model.train()
    return sim


def make_optimizer(sim: QuantizationSimModel) -> torch.optim.Optimizer:
    groups = [{"params": list(sim.model_parameters()), "lr": 1e-2}]
    ranges = list(sim.quantizer_parameters())
    if ranges:
        groups.append({"params": ranges, "lr": 1e-3})
    return torch.optim.Adam(groups)


def train(model, optimizer, data) -> list[float]:
    losses = []
    for x, labels in data:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
