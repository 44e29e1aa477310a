# SPDX-License-Identifier: BSD-3-Clause
"""Replayed forwards give what computed ones give, to the last bit, and compute less."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from replay_models import MODELS, RAN, Chain, Layer, RandomGraph, TwoParts, rows
from torch import nn
from torch.utils import _pytree as pytree

from aimetpp.quantsim import QuantizationSimModel

BUDGET = 1 << 24


def simulation(model: nn.Module, example: Any) -> QuantizationSimModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sim = QuantizationSimModel(
            model.eval(), example, default_output_bw=16, default_param_bw=16
        )
    sim.compute_encodings(lambda m: run(m, example))
    sim.model.eval()
    return sim


def make(name: str) -> tuple[QuantizationSimModel, Any]:
    torch.manual_seed(0)
    model, example = MODELS[name]
    return simulation(model(), example), example


def run(model: nn.Module, example: Any) -> list[torch.Tensor]:
    args = example if isinstance(example, tuple) else (example,)
    with torch.no_grad():
        output = model(*(x.clone() for x in args))
    return [x.clone() for x in pytree.tree_leaves(output)]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.view(torch.int32), y.view(torch.int32))
        for x, y in zip(a, b, strict=True)
    )


def settings(sim: QuantizationSimModel, seed: int) -> list[tuple[bool, list[str]]]:
    """(around full precision, precisions): some quantizers alone, then a walk down with
    steps back and jumps, then alone again.
    """
    rng = random.Random(seed)
    count = len(sim.precisions())

    def alone() -> tuple[bool, list[str]]:
        precisions = ["fp32"] * count
        for _ in range(rng.choice((1, 1, 2))):
            precisions[rng.randrange(count)] = rng.choice(("int4", "int8", "fp16"))
        return True, precisions

    found = [alone() for _ in range(5)]
    walk = ["int16"] * count
    for step in range(9):
        found.append((False, list(walk)))
        for _ in range(5 if step == 5 else 1):
            walk[rng.randrange(count)] = rng.choice(("int4", "int8", "int16", "fp32"))
    return [*found, alone(), alone()]


def outputs(
    sim: QuantizationSimModel, example: Any, seed: int, replay: Any = None
) -> list[list[torch.Tensor]]:
    found = []
    for around_float, precisions in settings(sim, seed):
        if replay is not None:
            replay.around_float = around_float
        sim.apply_precisions(precisions)
        found.append(run(sim.model, example))
    return found


def assert_same_as_computed(
    sim: QuantizationSimModel, example: Any, seed: int = 0, budget: int = BUDGET
) -> Any:
    """Replayed and computed outputs of many settings are equal; the replay."""
    computed = outputs(sim, example, seed)
    with sim.replaying(budget) as replay:
        replayed = outputs(sim, example, seed, replay)
        assert replay.store.peak_bytes <= budget
    for step, (a, b) in enumerate(zip(computed, replayed, strict=True)):
        assert same(a, b), f"setting {step}"
    return replay


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_computed_forwards(name: str) -> None:
    replay = assert_same_as_computed(*make(name))
    assert replay.given_up == ""
    # What is read after an unseen write, as of a part, is not given again.
    assert replay.replayed > 2 or name == "part written"


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_in_random_order(seed: int) -> None:
    torch.manual_seed(seed)
    x = rows(3, 8)
    replay = assert_same_as_computed(simulation(RandomGraph(seed), x), x, seed)
    assert "gave another result" not in replay.given_up


@pytest.mark.parametrize("budget", [200, 800, 2000, 5000])
@pytest.mark.parametrize("name", ["in place", "attention", "several"])
def test_any_budget_is_kept_and_changes_no_output(name: str, budget: int) -> None:
    assert_same_as_computed(*make(name), budget=budget)


def index_of(sim: QuantizationSimModel, site: str) -> int:
    names = [sim.graph.site_name(q.sites[0]) for q in sim.placement.quantizers]
    return names.index(site)


def with_changes(sim: QuantizationSimModel, changes: dict[str, str]) -> None:
    precisions = sim.precisions()
    for site, precision in changes.items():
        precisions[index_of(sim, site)] = precision
    sim.apply_precisions(precisions)


def ran(sim: QuantizationSimModel, x: torch.Tensor) -> str:
    RAN.clear()
    run(sim.model, x)
    return "".join(RAN)


def test_what_is_not_downstream_is_not_computed() -> None:
    sim, x = make("chain")
    with sim.replaying(BUDGET):
        assert ran(sim, x) == "abc"  # seen
        assert ran(sim, x) == "abc"  # recorded
        assert ran(sim, x) == "abc"  # the first replay, computed beside it
        assert ran(sim, x) == ""
        with_changes(sim, {"c.weight": "int8"})
        assert ran(sim, x) == "c"
        with_changes(sim, {"b.weight": "int8"})
        assert ran(sim, x) == "bc"
        assert ran(sim, x) == ""
        assert ran(sim, x + 1) == "abc"
        assert ran(sim, x) == ""
    assert ran(sim, x) == "abc"


def test_each_group_alone_computes_what_is_downstream_of_it() -> None:
    sim, x = make("chain")
    off = ["fp32"] * len(sim.precisions())
    with sim.replaying(BUDGET) as replay:
        replay.around_float = True
        sim.apply_precisions(off)
        for _ in range(3):
            ran(sim, x)
        for layer, expected in (("a", "abc"), ("c", "c"), ("b", "bc"), ("c", "c")):
            sim.apply_precisions(off)
            with_changes(sim, {f"{layer}.weight": "int8"})
            assert ran(sim, x) == expected


def test_memory_is_that_of_the_results() -> None:
    sim, x = make("chain")
    with sim.replaying(BUDGET) as replay:
        ran(sim, x)
        assert replay.store.bytes == 0
        ran(sim, x)
        # The input and 5 results of 5 x 8 float32.
        assert replay.store.bytes == 6 * 5 * 8 * 4
        with torch.no_grad():
            sim.model(x)  # held by nobody when its batch is forgotten
        sim.model.a.weight.data = sim.model.a.weight.data.clone()
        ran(sim, x)
        assert replay.store.bytes == 0


def test_other_data_every_time_is_merely_not_replayed() -> None:
    sim, x = make("chain")
    with sim.replaying(BUDGET) as replay:
        for step in range(4):
            assert ran(sim, x + step) == "abc"
        assert replay.store.bytes == 0


def test_without_a_budget_nothing_is_kept() -> None:
    sim, x = make("chain")
    with sim.replaying(0) as replay:
        assert [ran(sim, x) for _ in range(4)] == ["abc"] * 4
        assert replay.given_up == "no memory budget"


def test_who_writes_into_outputs_and_inputs_corrupts_nothing() -> None:
    sim, x = make("in place")
    expected = run(sim.model, x)
    with sim.replaying(BUDGET), torch.no_grad():
        for _ in range(6):
            mine = x.clone()
            output = sim.model(mine)
            assert same([output.clone()], expected)
            output.numpy()[...] = 7  # which no version counter sees
            mine.fill_(3)


def test_inference_mode_is_replayed() -> None:
    sim, x = make("in place")
    expected = run(sim.model, x)
    with sim.replaying(BUDGET) as replay, torch.inference_mode():
        for _ in range(4):
            assert same(run(sim.model, x), expected)
        assert replay.replayed == 2


def test_parts_of_the_model_may_run_alone() -> None:
    torch.manual_seed(0)
    x = rows(3, 8)
    sim = simulation(TwoParts(), x)
    with torch.no_grad():
        expected = sim.model.head(sim.model.body(x))
        with sim.replaying(BUDGET) as replay:
            for _ in range(5):
                assert torch.equal(sim.model.head(sim.model.body(x)), expected)
        assert replay.replayed == 6


class Odd(Chain):
    """A chain that does something that a replay must notice."""

    def __init__(self, act: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.act = act
        self.count = 0
        self.register_buffer("total", torch.zeros(1))
        self.log: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.act(self, x)
        return super().forward(x)


def _count(model: Any, x: torch.Tensor) -> None:
    model.count += 1


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda model, x: torch.rand(1), "draws random numbers"),
        (lambda model, x: random.random(), "draws random numbers"),
        (lambda model, x: model.total.add_(1), ""),  # seen before it is recorded
        (_count, "changes its attribute 'count'"),
        (lambda model, x: model.log.append(1), "changes its attribute 'log'"),
        (lambda model, x: setattr(model, "kept", x), "attribute 'kept'"),
    ],
)
def test_models_with_state_are_computed(act: Any, reason: str) -> None:
    torch.manual_seed(0)
    x = rows(3, 8)
    sim = simulation(Odd(act), x)
    sim.model.__dict__.pop("kept", None)
    with sim.replaying(BUDGET) as replay:
        assert [ran(sim, x) for _ in range(4)] == ["abc"] * 4
        assert reason in replay.given_up
        assert replay.store.bytes == 0


def test_state_out_of_sight_shows_where_it_would_first_be_replayed() -> None:
    calls: deque[int] = deque()

    class Drifting(Layer):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return super().forward(x) + len(calls)

    torch.manual_seed(0)
    model, x = Chain(), rows(3, 8)
    model.a = Drifting("a")
    sim = simulation(model, x)
    with sim.replaying(BUDGET) as replay:
        assert [ran(sim, x) for _ in range(4)] == ["abc"] * 4
        assert "gave another result" in replay.given_up


def test_hooks_training_mode_and_gradients_compute() -> None:
    sim, x = make("chain")
    seen: list[int] = []
    with sim.replaying(BUDGET) as replay:
        for _ in range(3):
            ran(sim, x)
        hook = sim.model.b.register_forward_hook(lambda *_: seen.append(1))
        assert [ran(sim, x) for _ in range(3)] == ["abc"] * 3
        assert len(seen) == 3
        hook.remove()
        sim.model.relu.train()
        assert [ran(sim, x) for _ in range(3)] == ["abc"] * 3
        sim.model.relu.eval()
        RAN.clear()
        for _ in range(3):
            sim.model(x).sum().backward()
        assert "".join(RAN) == "abc" * 3
        assert replay.given_up == ""
        assert [ran(sim, x) for _ in range(3)] == ["abc", "abc", ""]


def test_changed_weights_and_ranges_are_computed() -> None:
    sim, x = make("chain")
    with sim.replaying(BUDGET):
        for _ in range(4):
            ran(sim, x)
        sim.quantizers_by_index[index_of(sim, "c")].set_range(-0.25, 0.25)
        assert ran(sim, x) == "c"
        with torch.no_grad():
            sim.model.b.bias.add_(1)
        assert ran(sim, x) == "abc"
        expected = run(sim.model, x)
    assert same(run(sim.model, x), expected)


def test_weights_written_without_a_trace_are_computed() -> None:
    """`parameter.data` has a version of its own."""
    sim, x = make("chain")
    index = index_of(sim, "c")
    with sim.replaying(BUDGET):
        for _ in range(4):
            ran(sim, x)
        sim.model.b.weight.data.mul_(0.5)
        sim.quantizers_by_index[index].set_range(-0.25, 0.25)
        assert [ran(sim, x) for _ in range(2)] == ["bc", ""]
        found = run(sim.model, x)
    assert same(run(sim.model, x), found)


def test_a_path_that_depends_on_data_is_followed() -> None:
    """The order of two layers turns around with the precision of the first."""

    class Turning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = Layer("f")
            self.a, self.b = Layer("a"), Layer("b")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x)
            exact = float((y * 4096).round().sub(y * 4096).abs().max()) > 1e-3
            return self.a(self.b(y)) if exact else self.b(self.a(y))

    torch.manual_seed(0)
    x = rows(3, 8)
    sim = simulation(Turning(), x)
    sim.quantizers_by_index[index_of(sim, "first")].set_range(-8.0, 7.9375)
    found = []
    for context in (contextlib.nullcontext(), sim.replaying(BUDGET)):
        with context:
            sim.apply_precisions(["fp32"] * len(sim.precisions()))
            paths = []
            for precision in ("fp32", "fp32", "fp32", "int8", "fp32", "int8"):
                with_changes(sim, {"first": precision})
                if precision == "int8":
                    quantizer = sim.quantizers_by_index[index_of(sim, "first")]
                    quantizer.set_range(-8.0, 7.9375)
                paths.append((ran(sim, x), run(sim.model, x)))
            found.append(paths)
    assert {path for path, _ in found[0]} == {"fba", "fab"}
    for (_, computed), (_, replayed) in zip(*found, strict=True):
        assert same(computed, replayed)
