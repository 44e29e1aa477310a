# SPDX-License-Identifier: BSD-3-Clause
"""Streams, CUDA graphs, several devices, and a simulation that moved to a GPU."""

import copy

import pytest
import torch
from torch import nn

from aimetpp import ops
from aimetpp.quantsim import QuantizationSimModel

COUNT = 1 << 22
backend = torch.ops.aimetpp


@pytest.fixture
def call():
    """x, grad, and the rest of a call per channel of 64."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(64, COUNT // 64, generator=generator) for _ in "ab")
    high = torch.linspace(0.5, 2, 64)
    rest = -high, high, ops.integer_grid(8, False)
    return x.cuda(), grad.cuda(), [t.cuda() for t in rest]


def everything(x, grad, rest):
    """What all kernels make of one input, some of it from what others made."""
    y = ops.fake_quantize(x, *rest, False, 0)
    dx, dmin, dmax = backend.fake_quantize_backward(grad, y, *rest, False, 0)
    passed = backend.fake_quantize_input_gradient(dx, x, *rest, False, 0)
    narrow = ops.float_quantize(passed + y, 4, 3, True, rest[1] / 448, 0)
    narrow_grad = backend.float_quantize_backward(grad, narrow, 5, 2, True)
    return [y, dx, dmin, dmax, passed, narrow, narrow_grad]


def several_ranges(rest):
    """Two of each, for fake_quantize_many."""
    low, high, grid = rest
    return [low] * 2, [high] * 2, [grid] * 2, [False, True]


def assert_equal(these, those):
    for one, other in zip(these, those, strict=True):
        assert torch.equal(one, other)


def test_kernels_wait_for_their_stream(call):
    x, grad, rest = call
    expected = everything(x, grad, rest)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    late = torch.zeros_like(x)
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # cycles that the copy waits behind
        late.copy_(x)
        results = everything(late, grad, rest)
    stream.synchronize()
    assert_equal(results, expected)


def test_graphs_replay_with_other_data(call):
    x, grad, rest = call
    static = [torch.zeros_like(x), grad, [t.clone() for t in rest]]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        everything(*static)  # warms up
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = everything(*static)
    for factor in (1.0, 0.25):
        static[0].copy_(x * factor)
        graph.replay()
        assert_equal(results, everything(x * factor, grad, rest))
    # Another bit-width and range, which the kernels read on the device.
    static[2][2].copy_(ops.integer_grid(4, False))
    static[2][1].mul_(2)
    graph.replay()
    assert_equal(results, everything(static[0], grad, static[2]))


def test_observed_and_several_in_graphs(call):
    x, _, rest = call
    scalars = [rest[0][:1], rest[1][:1], rest[2]]

    def run(data):
        several = backend.fake_quantize_many(data, *several_ranges(rest), 0)
        return [*backend.fake_quantize_observed(data, *scalars, False), *several]

    static = torch.zeros_like(x)
    run(static)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run(static)
    static.copy_(x)
    graph.replay()
    assert_equal(results, run(x))


def test_calls_do_not_wait_for_the_device(call):
    x, grad, rest = call
    everything(x, grad, rest)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        everything(x, grad, rest)
        backend.fake_quantize_observed(x, rest[0][:1], rest[1][:1], rest[2], False)
        backend.fake_quantize_many(x, *several_ranges(rest), 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_tensors_of_another_device_than_the_current(call):
    x, grad, rest = call
    expected = everything(x, grad, rest)
    other = [t.to("cuda:1") for t in rest]
    with torch.cuda.device(0):
        results = everything(x.to("cuda:1"), grad.to("cuda:1"), other)
    assert {result.device.index for result in results} == {1}
    assert_equal([result.to("cuda:0") for result in results], expected)


def test_tensors_of_two_devices_are_an_error(call):
    x, _, (low, high, grid) = call
    with pytest.raises(ValueError, match="min must be on x's device"):
        ops.fake_quantize(x, low.cpu(), high, grid, False, 0)
    with pytest.raises(ValueError, match="grid must be on x's device"):
        ops.fake_quantize(x, low, high, grid.cpu(), False, 0)


class Net(nn.Module):
    """A convolution, an add, a linear layer: module and functional sites."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.mix = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        y = self.conv(x).relu()
        return self.fc((self.mix(y) + y).mean((2, 3)))


@pytest.fixture
def sims():
    """The same calibrated simulation on the CPU and on the GPU."""
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(8, 3, 16, 16)
    made = []
    for device in ("cpu", "cuda"):
        data = x.to(device)
        sim = QuantizationSimModel(
            copy.deepcopy(model).to(device), data, quant_scheme="tf_enhanced"
        )
        sim.compute_encodings(lambda m, batch: m(batch), data)
        made.append((sim, data))
    return made


@pytest.mark.parametrize("precision", ["int8", "int4", "fp16", "fp8_e4m3"])
def test_simulations_agree(sims, precision):
    outputs = []
    for sim, x in sims:
        sim.apply_precisions([precision] * len(sim.precisions()))
        with torch.no_grad():
            outputs.append(sim.model(x).cpu())
    # A convolution's last bits differ, and so may a value's side of a rounding.
    torch.testing.assert_close(*outputs, rtol=0.05, atol=0.05)


def test_training_steps_agree(sims):
    gradients = []
    for sim, x in sims:
        sim.model(x).square().sum().backward()
        gradients.append([p.grad.cpu() for p in sim.model.parameters()])
    for cpu, gpu in zip(*gradients, strict=True):
        scale = cpu.abs().max().item() + 1e-3
        torch.testing.assert_close(gpu, cpu, rtol=0.05, atol=0.05 * scale)


def test_compiled_and_in_half_precision(sims):
    sim, x = sims[1]
    with torch.no_grad():
        eager = sim.model(x)
        compiled = torch.compile(sim.model, fullgraph=True)(x)
        torch.testing.assert_close(compiled, eager, rtol=0.05, atol=0.05)
        with torch.autocast("cuda", torch.bfloat16):
            assert sim.model(x).isfinite().all()
