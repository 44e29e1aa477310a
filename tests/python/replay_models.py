# SPDX-License-Identifier: BSD-3-Clause
"""Small models in which it matters what a replayed forward gives again."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

# Such small tensors are faster without threads.
torch.set_num_threads(1)

# Names of the layers that have run, in order; a kind of object into which a replay does
# not look.
RAN: deque[str] = deque()


class OnePart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).relu()


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = OnePart(), OnePart()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x) * 2)


class Layer(nn.Linear):
    """A linear layer that notes in RAN that it computes."""

    def __init__(self, name: str, inputs: int = 8, outputs: int = 8) -> None:
        super().__init__(inputs, outputs)
        self.called = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        RAN.append(self.called)
        return super().forward(x)


class Chain(nn.Module):
    """a, relu, b, relu, c."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = Layer("a"), Layer("b"), Layer("c")
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.relu(self.b(self.relu(self.a(x)))))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.conv1(x)))
        y = self.conv2(x) + x
        return self.fc(torch.cat([x, y], 1).mean((2, 3)))


class InPlace(nn.Module):
    """What torchvision's residual blocks do: relu and += in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv3 = nn.Conv2d(4, 4, 1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv1(x))
        y = self.drop(self.bn(self.conv2(x)))
        y += x
        y = self.relu(y)
        return self.conv3(y).flatten(1)


class ReadBeforeWritten(nn.Module):
    """Layers read a tensor before it is overwritten, and behind."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = Layer("a"), Layer("b"), Layer("c")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        before = self.b(y)
        y.relu_()
        return self.c(y) + before


class PartWritten(nn.Module):
    """A part of a tensor is overwritten, a view of it read."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Layer("a"), Layer("b")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        view = y.view(-1, 2, 4)
        y[:, :4] = 0.5
        return self.b(view.reshape(-1, 8) * 2)


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act, self.out = nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = self.act(self.fc(x))
        return self.out(x)


class Several(nn.Module):
    """Two inputs and nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 8), nn.Linear(4, 8)
        self.lstm = nn.LSTM(8, 6, batch_first=True)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        z = self.left(x) * torch.sigmoid(self.right(y))
        first, second = z.chunk(2, -1)
        steps, (last, _) = self.lstm(z[:, None].expand(-1, 3, -1))
        return {"parts": [first + 1, second], "steps": (steps, last)}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + torch.arange(tokens.shape[1]).float()[:, None] / 9
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.block(x)


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


MODELS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "chain": (Chain, rows(5, 8)),
    "residual": (Residual, rows(4, 2, 6, 6)),
    "in place": (InPlace, rows(4, 2, 6, 6)),
    "read before written": (ReadBeforeWritten, rows(5, 8)),
    "part written": (PartWritten, rows(5, 8)),
    "reused": (Reused, rows(5, 8)),
    "several": (Several, (rows(5, 8), rows(5, 4))),
    "attention": (Attention, torch.arange(12).reshape(2, 6) % 11),
}


class RandomGraph(nn.Module):
    """Layers, sums, products, concatenations and ops in place, drawn by a seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)])
        self.act = nn.ReLU(inplace=rng.random() < 0.5)
        self.narrow = nn.Linear(16, 8)
        kinds = ("layer", "act", "add", "iadd", "mul", "cat", "sigmoid_", "view")
        self.plan = [
            (rng.choice(kinds), rng.randrange(1 << 20), rng.randrange(1 << 20))
            for _ in range(14)
        ]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = [self.layers[0](x)]
        for kind, first, second in self.plan:
            a, b = values[first % len(values)], values[second % len(values)]
            if kind == "layer":
                values.append(self.layers[second % 4](a))
            elif kind == "act":
                values.append(self.act(a))
            elif kind == "add":
                values.append(a + b)
            elif kind == "iadd":
                a += b
            elif kind == "mul":
                values.append(a * b.tanh())
            elif kind == "cat":
                values.append(self.narrow(torch.cat([a, b], -1)))
            elif kind == "sigmoid_":
                a.sigmoid_()
            else:
                values.append(a.view(-1, 2, 4).transpose(1, 2).reshape(-1, 8))
        return values[-1], values[0]
