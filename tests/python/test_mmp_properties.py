# SPDX-License-Identifier: BSD-3-Clause
"""Properties of manual mixed precision, over random models and random requests."""

from __future__ import annotations

import functools
import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmp_models import make_sim

from aimetpp import QuantizationSimModel
from aimetpp.mixed_precision import MixedPrecisionConfigurator

PRECISIONS = ["int4", "int8", "int16", "fp16", "bf16", "fp32"]
# Small models whose simulations are made once: the properties hold for any number
# of requests on each.
NUM_MODELS = 8
settings.register_profile("quick", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("quick")


class RandomNet(torch.nn.Module):
    """Layers and functional ops between tensors that were made before."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        choose = random.Random(seed)
        self.layers = torch.nn.ModuleList()
        self.steps: list[tuple[str, int, int]] = []
        for index in range(choose.randint(3, 9)):
            kind = choose.choice(["linear", "relu", "shared", "add", "cat", "flatten"])
            operands = choose.randint(0, index), choose.randint(0, index)
            self.steps.append((kind, *operands))
            self.layers.append(
                {"linear": torch.nn.Linear(4, 4), "relu": torch.nn.ReLU()}.get(
                    kind, torch.nn.Flatten(1)
                )
            )
        self.shared = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = [x]
        for (kind, left, right), layer in zip(self.steps, self.layers, strict=True):
            a, b = made[left], made[right]
            if kind == "add":
                made.append(a + b)
            elif kind == "cat":
                made.append(torch.cat([a, b], 1)[:, 2:6])
            elif kind == "shared":
                made.append(self.shared(a))
            else:
                made.append(layer(a))
        return made[-1] + made[-2]


@functools.cache
def simulation(seed: int) -> QuantizationSimModel:
    return make_sim(RandomNet(seed), torch.randn(2, 4))


def called_modules(sim: QuantizationSimModel) -> list[str]:
    calls = sim.graph.calls
    return sorted(
        {calls[op.call].module for op in sim.graph.ops if op.call >= 0} - {""}
    )


@st.composite
def requests_on_a_model(draw, most: int = 6):
    """(model seed, requests): leaves, containers, types, model inputs and outputs."""
    seed = draw(st.integers(0, NUM_MODELS - 1))
    sim = simulation(seed)
    names = [*called_modules(sim), "layers", "", "*/*"]
    precision = st.sampled_from(PRECISIONS)
    activation = st.one_of(st.none(), precision)
    params = st.one_of(st.none(), st.fixed_dictionaries({"weight": precision}))
    request = st.one_of(
        st.tuples(st.just("set_precision"), st.sampled_from(names), activation, params),
        st.tuples(
            st.just("set_precision"),
            st.sampled_from([torch.nn.Linear, torch.nn.ReLU]),
            activation,
            params,
        ),
        st.tuples(st.just("set_model_input_precision"), activation),
        st.tuples(st.just("set_model_output_precision"), activation),
    )
    return seed, draw(st.lists(request, min_size=1, max_size=most))


def applied(seed, requests, strict=False):
    """Precisions after applying to a simulation that is int8 everywhere."""
    sim = simulation(seed)
    sim.apply_precisions(["int8"] * len(sim.placement.quantizers))
    report = configured(sim, requests).apply(None, strict=strict)
    return sim.precisions(), report


def configured(sim, requests):
    mmp = MixedPrecisionConfigurator(sim)
    for method, *arguments in requests:
        if arguments[0] == "*/*" and not any("/" in op.name for op in sim.graph.ops):
            continue
        getattr(mmp, method)(*arguments)
    return mmp


@given(requests_on_a_model())
def test_applying_twice_is_applying_once(case):
    seed, requests = case
    once, _ = applied(seed, requests)
    sim = simulation(seed)
    report = configured(sim, requests).apply(None, strict=False)
    assert sim.precisions() == once and report.changes == []


def agreeing(seed, requests):
    """The requests without those that an earlier one of them does not agree with, in
    one order or the other, and those that cannot be carried out.
    """
    kept: list[tuple] = []
    for request in requests:
        pairs = [(request, request)]
        pairs += [pair for k in kept for pair in ((k, request), (request, k))]
        if not any(applied(seed, pair)[1].overruled for pair in pairs):
            kept.append(request)
    return kept


@given(requests_on_a_model(most=8), st.randoms(use_true_random=False))
def test_order_is_nothing_where_nothing_conflicts(case, shuffler):
    seed, requests = case
    kept = agreeing(seed, requests)
    once, report = applied(seed, kept)
    assert report.overruled == []
    for _ in range(3):
        shuffler.shuffle(kept)
        precisions, again = applied(seed, kept)
        assert precisions == once and again.overruled == []


@given(requests_on_a_model())
def test_the_latest_request_gets_all_that_it_asks(case):
    seed, requests = case
    last = requests[-1]
    alone, report_alone = applied(seed, [last])
    together, report = applied(seed, requests)
    sim = simulation(seed)
    names = [
        ", ".join(sim.graph.site_name(site) for site in spec.sites)
        for spec in sim.placement.quantizers
    ]
    reached = {line.subject for line in report_alone.realized}
    for name, only, both in zip(names, alone, together, strict=True):
        assert name not in reached or both == only
    number = len(report.requests)
    lost = [line.detail for line in report.overruled if line.request == number]
    assert lost == [line.detail for line in report_alone.overruled]


@given(requests_on_a_model())
def test_only_what_a_request_reaches_changes(case):
    seed, requests = case
    precisions, report = applied(seed, requests)
    sim = simulation(seed)
    untouched = {line.subject: line.detail for line in report.unchanged}
    changed = {name for change in report.changes for name in change.sites}
    for spec, precision in zip(sim.placement.quantizers, precisions, strict=True):
        names = [sim.graph.site_name(site) for site in spec.sites]
        if ", ".join(names) in untouched:
            assert precision == "int8" == untouched[", ".join(names)]
        assert (precision != "int8") == changed.issuperset(names)


@given(requests_on_a_model())
def test_strict_gives_the_same_or_an_error_and_no_change(case):
    seed, requests = case
    loose, _ = applied(seed, requests)
    try:
        strict, _ = applied(seed, requests, strict=True)
    except (RuntimeError, ValueError):
        assert set(simulation(seed).precisions()) == {"int8"}
    else:
        assert strict == loose
