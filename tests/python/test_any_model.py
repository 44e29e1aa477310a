# SPDX-License-Identifier: BSD-3-Clause
"""Unusual models: what they pass around, and what cannot be traced."""

import dataclasses
import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aimetpp.quantsim import QuantizationSimModel


class Calls(nn.Module):
    """Runs a function of itself and its inputs; has a layer `fc` and more children."""

    def __init__(self, function, **children):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(8, 8)
        self.function = function
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


def example(*shape):
    shape = shape or (2, 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def simulate(model, x):
    """A calibrated 16-bit simulation; the names of what is quantized; its result."""
    model.eval()
    sim = QuantizationSimModel(model, x, default_output_bw=16, default_param_bw=16)

    def run(m):
        with torch.no_grad():
            return m(**x) if isinstance(x, dict) else m(x)

    sim.compute_encodings(run)
    assert sim.uncalibrated() == []
    on = [site.name for site in sim.sites() if site.quantizer is not None]
    return on, run(sim.model), run(model)


def close(got, expected):
    return torch.allclose(got, expected, atol=2e-3)


@dataclasses.dataclass
class Result:
    y: torch.Tensor
    note: str = ""


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


class Doubles(nn.Module):
    def forward(self, x):
        return Result(x + x, "doubled")


class Splits(nn.Module):
    def forward(self, x):
        return Pair(*x.chunk(2, -1)), {"sum": x.sum(-1), "none": None}


def test_dataclasses_of_leaves_and_of_the_model():
    model = Calls(
        lambda m, x: Result(m.leaf(m.fc(x)).y + 1, m.leaf(x).note), leaf=Doubles()
    )
    on, got, expected = simulate(model, example())
    assert "leaf" in on and "/add_0" in on
    assert type(got) is Result and got.note == "doubled"
    assert close(got.y, expected.y)


def test_named_tuples_and_dicts_of_leaves():
    def function(m, x):
        pair, more = m.leaf(m.fc(x))
        return pair.first * pair.second + more["sum"][:, None], more["none"]

    on, got, expected = simulate(Calls(function, leaf=Splits()), example())
    outputs = ["leaf", "leaf.output.1", "leaf.output.2", "/mul_0", "/add_0"]
    assert on == ["fc.input.0", "fc.weight", "fc", *outputs]
    assert got[1] is None and close(got[0], expected[0])


def test_nested_keyword_inputs():
    def function(m, inputs, *, flag, pair, scale=None):
        return {"a": m.fc(inputs["x"]) if flag else None, "b": [pair[0] + scale, 3]}

    x = {
        "inputs": {"x": example(), "name": "text"},
        "flag": True,
        "pair": (example(2, 3), None),
        "scale": 2.0,
    }
    on, got, expected = simulate(Calls(function), x)
    assert on == ["fc.input.0", "fc.weight", "fc", "/add_0.input.0", "/add_0"]
    assert got["b"][1] == 3 and close(got["b"][0], expected["b"][0])


def test_ops_that_return_tuples():
    def function(m, x):
        a, b = m.fc(x).chunk(2, -1)
        c, d = torch.split(a.sigmoid(), 2, -1)
        first, _ = torch.unbind(b, 0)
        values, indices = torch.topk(c, 2)
        return first + 1, values * indices, torch.max(d, dim=-1).values

    on, got, expected = simulate(Calls(function), example())
    assert on == ["fc.input.0", "fc.weight", "fc", "/sigmoid_0", "/add_0", "/mul_0"]
    assert all(close(x, y) for x, y in zip(got, expected, strict=True))


def test_out_is_no_input():
    def function(m, x):
        out = torch.full((0,), math.nan)
        torch.add(x, 2.0, out=out)
        return m.fc(out)

    on, got, expected = simulate(Calls(function), example())
    assert on == ["/add_0.input.0", "/add_0", "fc.weight", "fc"]
    assert close(got, expected)


def test_running_statistics_are_not_quantized():
    class Norm(nn.BatchNorm1d):
        """As timm's: a batch norm with an activation inside."""

        def __init__(self):
            super().__init__(8)
            self.act = nn.ReLU()
            self.running_mean.fill_(0.25)

        def forward(self, x):
            statistics = self.running_mean, self.running_var
            return self.act(F.batch_norm(x, *statistics, self.weight, self.bias))

    model = Calls(lambda m, x: m.norm(m.fc(x)), norm=Norm())
    on, got, expected = simulate(model, example())
    assert on == ["fc.input.0", "fc.weight", "norm.act"]
    assert close(got, expected)


def test_recurrent_cells_and_packed_sequences():
    def function(m, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, [5, 3], batch_first=True)
        packed, _ = m.lstm(packed)
        padded, _ = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
        state = torch.zeros(2, 8)
        for step in range(3):
            state = m.cell(padded[:, step], state)
        return m.fc(state)

    model = Calls(function, lstm=nn.LSTM(8, 8, batch_first=True), cell=nn.GRUCell(8, 8))
    on, got, expected = simulate(model, example(2, 5, 8))
    assert {"lstm.weight_hh_l0", "lstm", "cell", "cell:1", "cell:2", "fc"} <= set(on)
    assert close(got, expected)


def test_a_layer_with_weights_and_children():
    class PaddedConv(nn.Conv2d):
        def __init__(self):
            super().__init__(3, 4, 3)
            self.pad = nn.ZeroPad2d(1)

        def forward(self, x):
            return super().forward(self.pad(x))

    model = nn.Sequential(PaddedConv(), nn.ReLU())
    on, got, expected = simulate(model, example(1, 3, 6, 6))
    assert on == ["0/conv2d_0.input.0", "0/conv2d_0.0.weight", "1"]
    assert close(got, expected)


def test_functions_of_bare_parameters():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.weight = nn.Parameter(torch.randn(4, 3, 3))
            self.act = nn.ReLU()

        def forward(self, x):
            return self.act(F.conv1d(x, self.weight))

    on, got, expected = simulate(Bare(), example(1, 3, 6))
    assert on == ["/conv1d_0.input.0", "/conv1d_0.weight", "act"]
    assert close(got, expected)


def test_unused_leaves_stay_float():
    model = Calls(lambda m, x: m.fc(x), unused=nn.Linear(3, 3))
    on, _, _ = simulate(model, example())
    assert on == ["fc.input.0", "fc.weight", "fc"]


def raises_in_trace(model, x, error, match):
    with pytest.raises(error, match=match):
        QuantizationSimModel(model.eval(), x, in_place=True)
    assert type(model) is Calls and type(model.fc) is nn.Linear  # left as it was


def test_an_unregistered_module_is_an_error():
    hidden = [nn.Linear(8, 8)]
    raises_in_trace(
        Calls(lambda m, x: m.fc(hidden[0](x))),
        example(),
        RuntimeError,
        r"/linear_0 \(test_any_model.py:\d+\).*not registered in the model",
    )


def test_a_scripted_module_is_an_error():
    scripted = torch.jit.script(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    raises_in_trace(
        Calls(lambda m, x: m.child(m.fc(x)), child=scripted),
        example(),
        TypeError,
        "module 'child' is a RecursiveScriptModule",
    )


@torch.jit.script
def branches(x: torch.Tensor):
    if x.sum() > 0:
        return x * 2
    return x


def test_control_flow_in_a_scripted_function_is_an_error_with_its_place():
    raises_in_trace(
        Calls(lambda m, x: branches(m.fc(x))),
        example(),
        RuntimeError,
        r"prim::If \(test_any_model.py:\d+\); control flow in a scripted function",
    )


def test_a_leaf_that_calls_a_module_is_an_error():
    class Caller(nn.Module):
        def __init__(self, other):
            super().__init__()
            self.other = [other]

        def forward(self, x):
            return self.other[0](x) * 2

    model = Calls(lambda m, x: m.caller(m.fc(x)))
    model.caller = Caller(model.fc)
    raises_in_trace(
        model,
        example(),
        RuntimeError,
        r"fc:1 \(test_any_model.py:\d+\) starts inside caller",
    )


def test_a_bare_module_is_a_place_for_what_is_put_there():
    class Hooked(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.hook_point = nn.Linear(4, 4), nn.Module()
            self.held = nn.Module()
            self.held.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x):
            return F.linear(self.fc(x), self.held.weight)

    model, x = Hooked().eval(), torch.randn(3, 4)
    sim = QuantizationSimModel(model, x, default_output_bw=16, default_param_bw=16)
    sim.compute_encodings(lambda m: m(x))
    on = [site.name for site in sim.sites() if site.quantizer is not None]
    assert on == ["fc.input.0", "fc.weight", "fc", "/linear_0.held.weight", "/linear_0"]
    torch.testing.assert_close(sim.model(x), model(x), rtol=0, atol=1e-3)
    assert sim.model.hook_point is not model.hook_point


def test_state_that_is_no_tensor(tmp_path):
    class Counting(nn.Linear):
        def get_extra_state(self):
            return {"count": 3}

        def set_extra_state(self, state):
            self.count = state["count"]

    x = torch.randn(2, 8)
    model = Calls(lambda self, x: self.inner(self.fc(x)), inner=Counting(8, 4))
    sim = QuantizationSimModel(model, x)
    sim.compute_encodings(lambda m: m(x))
    expected = sim.model(x)
    assert sim.model.state_dict()["inner._extra_state"] == {"count": 3}
    sim.export(tmp_path, "net", export_to_torchscript=True)
    assert torch.equal(torch.jit.load(tmp_path / "net.torchscript.pth")(x), expected)
    sim.model.load_state_dict(sim.model.state_dict())
    assert sim.model.inner.count == 3
    with pytest.raises(ValueError, match="'inner._extra_state' is dict; it cannot be"):
        sim.export_weights_to_safetensors(tmp_path, "net")
