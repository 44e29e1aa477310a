# SPDX-License-Identifier: BSD-3-Clause
"""Who is meant: parts of an attention, parameters without a call, globs."""

from __future__ import annotations

import fnmatch

import pytest
import torch
from mmp_models import apply_one, changed, make_sim
from torch import nn

from aimetpp.mixed_precision import MixedPrecisionConfigurator
from aimetpp.mixed_precision.name_match import NameMatcher

torch.set_num_threads(1)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pre = nn.Linear(8, 8)
        self.at = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.pre(x)
        return self.fc(self.at(h, h, h, need_weights=False)[0])


class CrossAttention(nn.Module):
    """Query, key and value from three layers; `dims` of key and value."""

    def __init__(self, **dims: int) -> None:
        super().__init__()
        self.q = nn.Linear(8, 8)
        self.k = nn.Linear(8, dims.get("kdim", 8))
        self.v = nn.Linear(8, dims.get("vdim", 8))
        self.at = nn.MultiheadAttention(8, 2, batch_first=True, **dims)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.at(self.q(x), self.k(x), self.v(x))[0])


class SharedKeyValue(CrossAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        memory = self.k(x)
        return self.fc(self.at(self.q(x), memory, memory)[0])


def attention_sim(model: nn.Module):
    return make_sim(model, torch.randn(1, 4, 8))


@pytest.mark.parametrize(
    "arg",
    [
        lambda sim: sim.model.at.out_proj,
        lambda sim: "at.out_proj",
        lambda sim: type(SelfAttention().at.out_proj),
        lambda sim: "at.out*",
        lambda sim: "at/linear_1",
    ],
    ids=["module", "name", "type", "glob", "op"],
)
def test_the_output_projection_of_an_attention_is_a_layer(arg):
    sim = attention_sim(SelfAttention())
    apply_one(sim, arg(sim), "int16", {"weight": "int4"})
    assert changed(sim) == {
        "at/matmul_1": "int16",  # what it reads
        "at/linear_1.at.out_proj.weight": "int4",
        "at/linear_1": "int16",
    }


def test_the_type_linear_covers_output_projections():
    sim = attention_sim(SelfAttention())
    apply_one(sim, nn.Linear, None, {"weight": "int4"})
    assert set(changed(sim)) == {
        "pre.weight",
        "at/linear_1.at.out_proj.weight",
        "fc.weight",
    }


def test_a_request_on_an_output_projection_is_one_on_a_leaf():
    sim = attention_sim(SelfAttention())
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("at.out_proj", "int16")
    mmp.set_precision("fc", "int4")
    with pytest.raises(RuntimeError, match=r"request 1 \(at\.out_proj, .*request 2"):
        mmp.apply(None)


class Borrows(nn.Module):
    """One layer is called and read, the other only read."""

    def __init__(self) -> None:
        super().__init__()
        self.called = nn.Linear(4, 4)
        self.read = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.linear(self.called(x), self.called.weight)
        return nn.functional.linear(x, self.read.weight, self.read.bias)


def test_a_module_that_is_called_is_not_what_else_reads_its_parameters():
    sim = make_sim(Borrows(), torch.randn(2, 4))
    report = apply_one(sim, "called", "int16")
    assert [line.subject for line in report.inferred] == ["called"]
    report = apply_one(sim, "read", "int16")
    assert [line.subject for line in report.inferred] == ["/linear_1"]


@pytest.mark.parametrize("dims", [{}, {"kdim": 6, "vdim": 5}])
@pytest.mark.parametrize("by", ["name", "type"])
def test_a_list_for_an_attention_is_query_key_value(dims, by):
    sim = attention_sim(CrossAttention(**dims))
    arg = "at" if by == "name" else nn.MultiheadAttention
    output = next(
        op.name
        for op in reversed(sim.graph.ops)
        if op.call >= 0 and op.name.startswith("at/linear")
    )
    apply_one(sim, arg, ["int16", "int4", None])
    assert changed(sim) == {"q": "int16", "k": "int4", output: "int16"}
    apply_one(sim, arg, [None, None, "fp16"])
    assert changed(sim) == {"q": "int16", "k": "int4", "v": "fp16", output: "int16"}


def test_one_tensor_that_is_key_and_value_has_one_precision():
    sim = attention_sim(SharedKeyValue())
    apply_one(sim, "at", ["int4", "int16", "int16"])
    assert changed(sim)["k"] == "int16"
    with pytest.raises(RuntimeError, match="asks for int16 .* and int4"):
        apply_one(sim, "at", ["int4", "int16", "int4"])


def test_a_list_of_another_length_names_what_an_attention_reads():
    mmp = MixedPrecisionConfigurator(attention_sim(SelfAttention()))
    with pytest.raises(ValueError, match="each of query, key, value of at, got 2"):
        mmp.set_precision("at", ["int16", "int8"])


def test_a_matcher_finds_what_fnmatch_finds():
    names = ["", "a", "a.b", "a.bc", "a/add_0", "ab", "b.a", "a[0]", "layer1.0.conv"]
    matcher = NameMatcher(names)
    for pattern in ("*", "a*", "a.*", "?", "a.b?", "*a", "a[./]*", "[!a]*", "z*", "a"):
        expected = sorted(n for n in names if fnmatch.fnmatchcase(n, pattern))
        assert matcher.matches(pattern) == expected, pattern


class Twice(nn.Module):
    """One block under two names, called twice; an Identity."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) + x

    def __init__(self) -> None:
        super().__init__()
        self.one = self.Block()
        self.two = self.one
        self.same = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.same(self.two(self.one(x)))


@pytest.mark.parametrize(
    "name, alias", [("one/add_0", "two/add_0"), ("one.linear:1", "two.linear:1")]
)
def test_a_call_goes_by_any_name_of_its_module(name, alias):
    sims = [make_sim(Twice(), torch.randn(2, 4)) for _ in range(2)]
    for sim, each in zip(sims, (name, alias), strict=True):
        apply_one(sim, each, "int16")
    assert changed(sims[0]) == changed(sims[1]) != {}


@pytest.mark.parametrize("arg", ["same", nn.Identity])
def test_a_module_that_computes_nothing_is_no_layer(arg):
    sim = make_sim(Twice(), torch.randn(2, 4))
    with pytest.raises(ValueError, match="matches no layer that computes anything"):
        apply_one(sim, arg, "int16")


def test_a_name_of_no_parameter_is_an_error_without_a_precision_too():
    mmp = MixedPrecisionConfigurator(make_sim())
    with pytest.raises(ValueError, match=r"fc has no parameter 'wieght'; .*weight"):
        mmp.set_precision("fc", None, {"wieght": None})
    mmp.set_precision("fc", None, {"weight": None, "bias": None})
    unbiased = make_sim(nn.Linear(4, 4, bias=False), torch.randn(2, 4))
    MixedPrecisionConfigurator(unbiased).set_precision(
        unbiased.model, "int4", {"bias": None}
    )


@pytest.mark.parametrize("pair", [(4, "int"), [4, "int"]])
def test_a_pair_with_a_word_is_one_precision_wherever_it_stands(pair):
    sims = [make_sim() for _ in range(2)]
    for sim, precision in zip(sims, ("int4", pair), strict=True):
        mmp = MixedPrecisionConfigurator(sim)
        mmp.set_model_input_precision(precision)
        mmp.set_model_output_precision([precision])
        mmp.set_precision("conv3", precision, {"weight": precision})
        mmp.apply(None, strict=False)
    assert changed(sims[0]) == changed(sims[1]) != {}
