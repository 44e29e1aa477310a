# SPDX-License-Identifier: BSD-3-Clause
"""With gradients on: ops that overwrite their input, and gradients that are written
where the engine's own stand.
"""

import copy

import pytest
import torch
from torch import nn

from aimetpp import ops
from aimetpp.quantsim import QuantizationSimModel

RANGE = (torch.tensor(-1.0), torch.tensor(1.0))


def data():
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """`use`: what becomes of the activation's input and result."""

    def __init__(self, activation, use):
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.activation, self.use = activation, use
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.last(self.use(self, self.bn(self.conv(x))))


def returned(self, x):
    return self.activation(x)


def other_name(self, x):
    self.activation(x)
    return x


def view(self, x):
    return self.activation(x.view(4, 4, 16)).view(4, 4, 4, 4)


def viewed_before(self, x):
    alias = x.view(4, 4, 4, 4)
    self.activation(x)
    return alias


def used_before(self, x):
    y = x * 2
    return self.activation(y) + x


def simulate(activation, use):
    sim = QuantizationSimModel(Block(activation, use), data())
    sim.compute_encodings(lambda m: m(data()))
    sim.model.train()
    return sim


def gradients(sim):
    result = sim.model(data())
    result.square().sum().backward()
    parameters = sim.model.named_parameters()
    return result, {name: p.grad for name, p in parameters}


CASES = [
    (cls, use)
    for cls in (nn.ReLU6, nn.ReLU, nn.SiLU, nn.Hardswish, nn.ELU)
    for use in (returned, other_name, view, viewed_before, used_before)
    # A second reader keeps a ReLU from fusing with what is before it, and so has
    # other quantizers than the model without that reader.
    if not (use is viewed_before and issubclass(cls, nn.ReLU | nn.ReLU6))
]


@pytest.mark.parametrize(("cls", "use"), CASES)
def test_overwriting_gives_the_gradients_of_the_pure_module(cls, use):
    pure = {other_name: returned, viewed_before: returned}.get(use, use)
    y, got = gradients(simulate(cls(inplace=True), use))
    expected_y, expected = gradients(simulate(cls(), pure))
    assert torch.equal(y, expected_y) and len(got) > 10
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, msg=name)


def test_modules_keep_their_inplace_setting():
    sim = simulate(nn.ReLU(inplace=True), returned)
    sim.model(data())
    assert sim.model.activation.inplace is True
    with pytest.raises(RuntimeError):
        sim.model(torch.zeros(4, 3, 1, 1))
    assert sim.model.activation.inplace is True


@pytest.mark.parametrize("keep", ["hook", "retain", "leaf", "twice", "nothing"])
def test_gradients_that_somebody_keeps_are_not_written_over(keep):
    x = torch.linspace(-2, 2, 12, requires_grad=True)
    upstream = torch.arange(12.0)
    y = ops.fake_quantize(x * 1, *RANGE, ops.integer_grid(4, False), False)
    kept = []
    if keep == "hook":
        y.register_hook(kept.append)
    if keep == "retain":
        y.retain_grad()
    given = upstream if keep == "leaf" else upstream.clone()
    y.backward(given, retain_graph=keep == "twice")
    expected = upstream * (x.abs() <= 1.05)
    assert torch.equal(x.grad, expected)
    for gradient in (*kept, *([y.grad] if keep == "retain" else []), upstream):
        assert torch.equal(gradient, torch.arange(12.0))
    assert torch.equal(given, upstream)
    if keep == "twice":
        y.backward(given)
        assert torch.equal(x.grad, 2 * expected)


def test_a_sum_of_two_paths():
    def gradient(quantize):
        x = torch.linspace(-2, 2, 12, requires_grad=True)
        y = quantize(x * 1)
        (y * 3 + y.exp() + (x * 2)).sum().backward()
        return x.grad

    grid = ops.integer_grid(4, False)
    backward = torch.ops.aimetpp.fake_quantize_backward

    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return ops.fake_quantize(x, *RANGE, grid, False)

        @staticmethod
        def backward(ctx, upstream):
            return backward(upstream, ctx.saved_tensors[0], *RANGE, grid, False)[0]

    got = gradient(lambda x: ops.fake_quantize(x, *RANGE, grid, False))
    assert torch.equal(got, gradient(Plain.apply))


def test_the_backward_op_in_place():
    x, upstream = torch.linspace(-2, 2, 12), torch.arange(12.0)
    grid = ops.integer_grid(4, False)
    dx, dmin, dmax = torch.ops.aimetpp.fake_quantize_backward(
        upstream, x, *RANGE, grid, False
    )
    for written in (upstream.clone(), torch.zeros(24)[::2]):
        written.copy_(upstream)
        ends = torch.ops.aimetpp.fake_quantize_backward_(
            written, x, *RANGE, grid, False
        )
        assert torch.equal(written, dx)
        assert torch.equal(ends[0], dmin) and torch.equal(ends[1], dmax)
    torch.library.opcheck(
        torch.ops.aimetpp.fake_quantize_backward_.default,
        (upstream.clone(), x, *RANGE, grid, False),
    )


def test_a_copied_model_trains_alike():
    sim = simulate(nn.ReLU6(inplace=True), returned)
    copied = copy.deepcopy(sim)
    _, one = gradients(sim)
    _, two = gradients(copied)
    assert all(torch.equal(one[name], two[name]) for name in one)
