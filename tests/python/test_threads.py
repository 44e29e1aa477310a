# SPDX-License-Identifier: BSD-3-Clause
"""Threads that call simulated models at the same time: their forwards take turns."""

import threading

import pytest
import torch
from threads import in_threads
from torch import nn
from torch.utils.checkpoint import checkpoint

from aimetpp.quantsim import QuantizationSimModel

THREADS = 4


class Functional(nn.Module):
    def forward(self, x):
        return torch.relu(x + 1) * x


MODELS = {
    "functional ops": Functional,
    "a leaf alone": lambda: nn.Linear(48, 48),
    "layers": lambda: nn.Sequential(nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 48)),
    "attention": lambda: nn.TransformerEncoderLayer(48, 4, batch_first=True),
}


def simulated(model, x):
    sim = QuantizationSimModel(model.eval(), x, default_param_bw=3, default_output_bw=3)
    sim.compute_encodings(lambda m: m(x))
    return sim.model.eval()


def inputs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 5, 48, generator=generator) * k for k in range(1, 5)]


@pytest.mark.parametrize("with_gradients", [False, True])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_every_thread_gets_what_it_would_get_alone(make, with_gradients):
    torch.manual_seed(0)
    given = inputs()
    model = simulated(make(), given[0])
    with torch.set_grad_enabled(with_gradients):
        expected = [model(x).detach() for x in given]

    def run(k):
        with torch.set_grad_enabled(with_gradients):
            for _ in range(40):
                assert torch.equal(model(given[k]), expected[k])

    in_threads(*(lambda k=k: run(k) for k in range(THREADS)))


def test_a_simulation_is_built_while_another_one_runs():
    x = inputs()[0]
    model = simulated(Functional(), x)
    with torch.no_grad():
        expected = model(x)
    built = []

    def build():
        for _ in range(3):
            sim = QuantizationSimModel(nn.Sequential(nn.Linear(48, 4), nn.ReLU()), x)
            built.append([site.name for site in sim.sites()])

    @torch.no_grad()
    def run():
        while len(built) < 3 and builder.is_alive():
            assert torch.equal(model(x), expected)

    builder = threading.Thread(target=build)
    builder.start()
    try:
        run()
    finally:
        builder.join()
    assert built == [["0.input.0", "0.weight", "0.bias", "0", "1.input.0", "1"]] * 3


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(48, 48)

    def forward(self, x):
        return torch.relu(self.fc(x))


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()

    def forward(self, x):
        return checkpoint(self.block, x, use_reentrant=False) * 2


def test_backward_passes_that_run_forwards_take_turns_too():
    given = [x.requires_grad_() for x in inputs()]
    torch.manual_seed(0)
    model = simulated(Checkpointed(), given[0].detach())
    expected = [torch.autograd.grad(model(x).sum(), x)[0] for x in given]

    def run(k):
        for _ in range(20):
            (gradient,) = torch.autograd.grad(model(given[k]).sum(), given[k])
            assert torch.equal(gradient, expected[k])

    in_threads(*(lambda k=k: run(k) for k in range(THREADS)))
