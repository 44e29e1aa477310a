# SPDX-License-Identifier: BSD-3-Clause
"""Models whose path depends on data are noticed, and calls off the path are errors."""

import warnings

import pytest
import torch
from torch import nn

from aimetpp.quantsim import QuantizationSimModel


class Steps(nn.Module):
    """Calls of `fc` and `other` as `path` says: a function of the first layer's result
    that returns what to call next.
    """

    def __init__(self, path):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.other, self.act = nn.Linear(8, 8), nn.Linear(8, 8), nn.ReLU()
        self.path = path

    def forward(self, x):
        return self.path(self, self.fc(x))


def example():
    return torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


def quiet_simulation(model, x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return QuantizationSimModel(model, x)


def other_module(model, y):
    return model.act(y) if y.sum() > 0 else model.other(y)


def other_op(model, y):
    return y * 2 if y.sum() > 0 else y - 1


def one_more(model, y):
    y = model.act(y)
    return y if y.sum() > 5 else model.act(y)


@pytest.mark.parametrize(
    ("path", "places"),
    [
        (other_module, ["module 'act'", "module 'other'"]),
        (other_op, ["functional op 'mul'", "functional op 'sub'"]),
        (one_more, ["the end of the forward", "module 'act'"]),
    ],
)
def test_a_path_that_depends_on_data_is_said(path, places):
    model, x = Steps(path), example()
    with pytest.warns(RuntimeWarning, match="takes another path") as caught:
        QuantizationSimModel(model.eval(), x)
    (warning,) = [w for w in caught if w.category is RuntimeWarning]
    text = str(warning.message)
    assert text.count("test_other_paths.py:") >= 1
    assert any(place in text for place in places)
    assert warning.filename == __file__


def test_a_forward_that_ends_early_is_said():
    def ends_early(model, y):
        if y.sum() > 0:
            return y
        return model.act(y) + 1

    model = Steps(ends_early).eval()
    with torch.no_grad():
        x = example()
        x = x if model.fc(x).sum() <= 0 else -x
        assert model.fc(x).sum() <= 0 < model.fc(-x).sum()
    with pytest.warns(RuntimeWarning, match="module 'act'.*the forward ended before"):
        QuantizationSimModel(model, x)


def test_a_forward_that_does_not_depend_on_data_is_not_warned_about():
    model = Steps(lambda model, y: model.other(torch.where(y > 0, y, -y)))
    quiet_simulation(model.eval(), example())
    quiet_simulation(nn.Embedding(10, 4), torch.randint(0, 10, (2, 5)))


def test_inputs_are_left_alone():
    def writes(model, y):
        return model.other(y)

    class Writes(Steps):
        def forward(self, x, mask):
            return super().forward(x.add_(1)) * mask.add_(1)[:, None]

    x, mask = example(), torch.tensor([1, 0])
    quiet_simulation(Writes(writes).eval(), (x, mask))
    assert torch.equal(x, example()) and torch.equal(mask, torch.tensor([1, 0]))


def test_a_forward_that_fails_with_other_values_is_said():
    def refuses(model, y):
        if y.mean() > 0:
            raise ValueError("not for me")
        return model.act(y)

    model, x = Steps(refuses).eval(), example()
    with torch.no_grad():
        x = x if model.fc(x).mean() <= 0 else -x
    with pytest.warns(RuntimeWarning, match="could not be checked.*'mean'.*not for me"):
        QuantizationSimModel(model, x)


def test_a_module_off_the_path_is_an_error():
    class Flag(Steps):
        extra = 0

        def forward(self, x):
            y = self.fc(x)
            for _ in range(self.extra):
                y = self.act(y)
            return self.other(y) if self.extra == 0 else y

    sim = QuantizationSimModel(Flag(None).eval(), example())
    sim.compute_encodings(lambda m: m(example()))
    sim.model.extra = 1
    with pytest.raises(
        RuntimeError,
        match=r"call 1 of module 'act' \(test_other_paths.py:.*0 calls were",
    ):
        sim.model(example())
    sim.untraced_ops = "warn"
    with pytest.warns(RuntimeWarning, match="module 'act'"):
        sim.model(example())


def test_a_second_call_that_was_not_traced_is_an_error():
    class Again(Steps):
        calls = 1

        def forward(self, x):
            for _ in range(self.calls):
                x = self.fc(x)
            return x

    sim = QuantizationSimModel(Again(None).eval(), example())
    sim.compute_encodings(lambda m: m(example()))
    sim.model.calls = 2
    with pytest.raises(RuntimeError, match="call 2 of module 'fc'.*1 calls were"):
        sim.model(example())
    sim.untraced_ops = "warn"
    with pytest.warns(RuntimeWarning, match="module 'fc'"):
        sim.model(example())


class Constrained(nn.Linear):
    """Its weight's rows have a norm of 0.5 at most: written as EEGNet's layers do."""

    def forward(self, x):
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.5)
        return super().forward(x)


class Halving(nn.Linear):
    """Writes past the version counter, after use."""

    def forward(self, x):
        y = super().forward(x)
        self.weight.data.mul_(0.5)
        return y


class HalvingTheParameter(nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        for parameter in self.parameters():
            parameter.data.mul_(0.5)
        return y


WRITERS = {
    "in place of data": (lambda: Constrained(8, 8), example()),
    "into data": (lambda: Halving(8, 8), example()),
    "max_norm": (lambda: nn.Embedding(8, 8, max_norm=0.5), torch.arange(8)),
}


@pytest.mark.parametrize(("make", "x"), WRITERS.values(), ids=WRITERS)
def test_writes_into_a_quantized_weight_are_said_and_reach_no_other_call(make, x):
    torch.manual_seed(0)
    layer = make()
    message = f"module '0', of class {type(layer).__name__}, writes .* 'weight'"
    with pytest.warns(RuntimeWarning, match=message) as seen:
        sim = QuantizationSimModel(nn.Sequential(layer, nn.ReLU()), x)
    assert seen[0].filename == __file__
    sim.compute_encodings(lambda model: model(x))
    results = []
    for kept in ("none", "all"):
        sim.kept_weights = kept
        with torch.no_grad():
            results += [sim.model(x) for _ in range(3)]
    results.append(sim.model(x).detach())
    assert all(torch.equal(result, results[0]) for result in results)


def test_writes_into_the_parameter_itself_reach_it():
    torch.manual_seed(0)
    x, layer = example(), HalvingTheParameter(8, 8)
    sim = quiet_simulation(nn.Sequential(layer, nn.ReLU()), x)
    for parameter, start in zip(
        sim.model[0].parameters(recurse=False), layer.parameters(), strict=True
    ):
        parameter.data.copy_(start.data)
    sim.kept_weights = "all"
    sim.model[0].param_quantizers["weight"].set_range(-1.0, 1.0)
    for quantizers in (sim.model[0].input_quantizers, sim.model[1].output_quantizers):
        quantizers[0].set_range(-4.0, 4.0)
    float_model = nn.Sequential(layer, nn.ReLU())
    with torch.no_grad():
        for _ in range(3):
            assert torch.allclose(sim.model(x), float_model(x), atol=0.1)
    assert torch.equal(sim.model[0]._parameters["weight"], layer.weight)
