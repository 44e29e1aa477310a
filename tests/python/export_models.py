# SPDX-License-Identifier: BSD-3-Clause
"""Small models for the tests of the exports."""

import torch
from torch import nn


class TwoReaders(nn.Module):
    """Two layers that read the model's input."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.a(x), self.b(x)


class Nested(nn.Module):
    """A nested and a keyword-only argument, a dict as result."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, first, pair, *, mask):
        return {"sum": self.fc(first) + pair[0], "rest": self.fc(pair[1]) * mask}


def nested_example():
    """Keyword arguments of Nested."""
    first, *pair, mask = torch.randn(4, 3, 4).unbind()
    return {"first": first, "pair": tuple(pair), "mask": mask}
