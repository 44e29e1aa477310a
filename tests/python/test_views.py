# SPDX-License-Identifier: BSD-3-Clause
"""Views and in-place writes: whoever reads after a write reads what was written."""

import torch
from torch import nn

from aimetpp.quantsim import QuantizationSimModel


def graph_of(function, *inputs):
    """The lines of the graph of a function behind a linear layer `fc`."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            return function(self.fc(x))

    x = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    model = Model().eval()
    sim = QuantizationSimModel(
        model, x, default_output_bw=16, default_param_bw=16, in_place=False
    )
    sim.compute_encodings(lambda m: m(x))
    with torch.no_grad():
        assert torch.allclose(sim.model(x), model(x), atol=1e-3)
    lines = sim.graph.to_text().splitlines()
    return [line.replace(" grid_preserving", "") for line in lines[2:]]


def test_a_view_made_before_its_base_is_written():
    def function(y):
        view = y.view(4, 4)
        y.mul_(2)
        return view + 1

    assert graph_of(function) == [
        "view@1: view(t1) -> t2",
        "/mul_0: mul(t1#4) -> t3#5 factor=2",
        "view@3: view(t3) -> t4",
        "/add_0: add(t4#6) -> t5#7",
        "out: t5",
    ]


def test_a_view_of_a_view_follows_a_write_into_another_view():
    def function(y):
        view = y.view(4, 4)
        first = view.select(0, 0)
        y.select(1, 0).mul_(2)
        return first + 1

    assert graph_of(function) == [
        "view@1: view(t1) -> t2",
        "select@2: select(t2) -> t3",
        "select@3: select(t1) -> t4",
        "/mul_0: mul(t4#4) -> t5#5 factor=2",
        "slice_scatter@5: slice_scatter(t1, t5) -> t6",
        "view@6: view(t6) -> t7",
        "select@7: select(t7) -> t8",
        "/add_0: add(t8#6) -> t9#7",
        "out: t9",
    ]


def test_a_view_follows_every_write():
    def function(y):
        view = y.view(4, 4)
        y.mul_(2)
        view.add_(1)
        return torch.relu(y)

    assert graph_of(function) == [
        "view@1: view(t1) -> t2",
        "/mul_0: mul(t1#4) -> t3#5 factor=2",
        "view@3: view(t3) -> t4",
        "/add_0: add(t4#6) -> t5#7",
        "slice_scatter@5: slice_scatter(t3, t5) -> t6",
        "/relu_0: relu(t6#8) -> t7#9",
        "out: t7",
    ]


def test_chunks_follow_the_tensor_that_they_show():
    def function(y):
        left, right = y.chunk(2, dim=1)
        y.add_(1)
        return left * right

    assert graph_of(function) == [
        "chunk@1: chunk(t1) -> t2, t3",
        "/add_0: add(t1#4) -> t4#5",
        "chunk@3: chunk(t4) -> t5",
        "chunk@4: chunk(t4) -> t6",
        "/mul_0: mul(t5#6, t6#7) -> t7#8",
        "out: t7",
    ]


def test_a_view_that_is_not_read_again_stays():
    def function(y):
        total = y.view(4, 4) + 1
        y.mul_(2)
        return y * total.view(2, 8)

    assert graph_of(function) == [
        "view@1: view(t1) -> t2",
        "/add_0: add(t2#4) -> t3#5",
        "/mul_0: mul(t1#6) -> t4#7 factor=2",
        "view@4: view(t3) -> t5",
        "/mul_1: mul(t4#8, t5#9) -> t6#10",
        "out: t6",
    ]
