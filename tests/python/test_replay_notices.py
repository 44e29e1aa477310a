# SPDX-License-Identifier: BSD-3-Clause
"""What changes between two forwards of an evaluation is noticed: outputs after it are
those that computing gives, and a forward is run as often as without replay.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from replay_models import rows
from test_replaying import (
    BUDGET,
    index_of,
    make,
    ran,
    run,
    same,
    simulation,
)
from torch import nn
from torch.overrides import TorchFunctionMode

from aimetpp.quantsim import QuantizationSimModel

SETTINGS = {"number": 1.0, "list": [1.0]}


def assert_noticed(
    make_sim: Callable[[], QuantizationSimModel],
    x: torch.Tensor,
    change: Callable[[Any], Any],
) -> list[torch.Tensor]:
    """Outputs after a change, of a seen and of a new batch, are those of a simulation
    that has kept nothing; the former ones.
    """
    sim, other = make_sim(), make_sim()
    before = run(other.model, x)
    with sim.replaying(BUDGET) as replay:
        for _ in range(4):
            run(sim.model, x)
        assert replay.replayed == 2
        undo = change(sim)
        found = [run(sim.model, batch) for batch in (x, x + 1, x)]
        if undo is not None:
            undo()
    undo = change(other)
    expected = [run(other.model, batch) for batch in (x, x + 1, x)]
    if undo is not None:
        undo()
    for a, b in zip(found, expected, strict=True):
        assert same(a, b)
    assert not same(before, expected[0])
    return before


def written(path: str, write: Callable[[torch.Tensor], Any]) -> Callable[[Any], None]:
    def change(sim: Any) -> None:
        module, name = path.rsplit(".", 1)
        write(getattr(sim.model.get_submodule(module), name))

    return change


def range_of(site: str, end: str) -> Callable[[Any], None]:
    def change(sim: Any) -> None:
        quantizer = sim.quantizers_by_index[index_of(sim, site)]
        getattr(quantizer, end).data.mul_(0.5)

    return change


def through_numpy(weight: torch.Tensor) -> None:
    weight.detach().numpy()[...] *= -1


@pytest.mark.parametrize(
    "change",
    [
        written("b.weight", lambda w: w.data.mul_(1.1)),
        written("b.weight", lambda w: w.data.neg_()),
        written("b.bias", lambda w: w.data.add_(0.5)),
        written("a.weight", through_numpy),
        range_of("c", "max"),
        range_of("b.weight", "max"),
    ],
)
def test_writes_through_data_in_the_middle_of_an_evaluation(change: Any) -> None:
    assert_noticed(lambda: make("chain")[0], rows(5, 8), change)


class Offset(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.ones(8))

    def forward(self) -> torch.Tensor:
        return self.offset


class WithOffset(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.offset = nn.Linear(8, 8), Offset()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) * self.offset()


def test_a_parameter_that_is_a_result() -> None:
    def made() -> QuantizationSimModel:
        torch.manual_seed(0)
        sim = simulation(WithOffset(), rows(5, 8))
        sim.apply_precisions(["fp32"] * len(sim.precisions()))
        return sim

    halve = written("offset.offset", lambda x: x.data.mul_(0.5))
    assert_noticed(made, rows(5, 8), halve)


def test_only_what_is_behind_the_written_weight_is_computed() -> None:
    sim, x = make("chain")
    with sim.replaying(BUDGET):
        for _ in range(4):
            ran(sim, x)
        sim.model.b.weight.data.mul_(1.1)
        assert [ran(sim, x) for _ in range(2)] == ["bc", ""]


def scaled_by_closure() -> tuple[Callable[[Any], Any], Callable[[], None]]:
    factor = 1.0

    def scaled(x: torch.Tensor) -> torch.Tensor:
        return x * factor

    def grow() -> None:
        nonlocal factor
        factor = 3.0

    return scaled, grow


class Scale(nn.Module):
    """A leaf that multiplies by numbers from many places."""

    shared = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.nested = {"parts": [1.0, (1.0,)]}
        self.config = SimpleNamespace(factor=1.0)
        self.plain = torch.ones(8)
        self.fn, self.grow = scaled_by_closure()
        self.partner = [nn.Linear(8, 8).requires_grad_(False)]  # no child

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factor = SETTINGS["number"] * SETTINGS["list"][0] * self.shared  # type: ignore
        factor *= self.nested["parts"][0] * self.helper()  # type: ignore[operator]
        x = self.fn(x * factor * self.config.factor) * self.plain
        return x @ self.partner[0].weight

    def helper(self) -> float:
        return HELPED["factor"]


HELPED = {"factor": 1.0}


class Attributed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.act = nn.LeakyReLU(0.1)
        self.scale = Scale()
        self.soft = nn.Softmax(dim=-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.soft(self.scale(self.act(self.norm(self.first(x)))))


def set_to(path: str, value: Any) -> Callable[[Any], None]:
    def change(sim: Any) -> None:
        module, name = path.rsplit(".", 1)
        setattr(functools.reduce(getattr, module.split("."), sim.model), name, value)

    return change


def item(holder: Any, key: Any) -> Callable[[Any], Callable[[], None]]:
    def change(sim: Any) -> Callable[[], None]:
        before, holder[key] = holder[key], 3.0
        return lambda: holder.__setitem__(key, before)

    return change


def of_class(sim: Any) -> Callable[[], None]:
    Scale.shared = 3.0
    return lambda: setattr(Scale, "shared", 1.0)


def in_scale(change: Callable[[Any], Any]) -> Callable[[Any], None]:
    def changed(sim: Any) -> None:
        change(sim.model.scale)

    return changed


def partner_written(scale: Any) -> None:
    scale.partner[0].weight.data.neg_()


@pytest.mark.parametrize(
    "change",
    [
        set_to("norm.eps", 1.0),
        set_to("act.negative_slope", 0.5),
        set_to("soft.dim", -2),  # which Python hashes as -1
        set_to("scale.config.factor", 3.0),
        set_to("scale.fn", lambda x: x * 3),
        written("norm.running_mean", lambda x: x.data.add_(0.5)),
        written("scale.plain", lambda x: x.data.mul_(3)),
        in_scale(lambda scale: scale.nested["parts"].__setitem__(0, 3.0)),
        in_scale(lambda scale: scale.grow()),
        in_scale(partner_written),
        item(SETTINGS, "number"),
        item(SETTINGS["list"], 0),
        item(HELPED, "factor"),
        of_class,
    ],
)
def test_attributes_and_what_code_reaches(change: Any) -> None:
    x = rows(5, 8)

    def made() -> QuantizationSimModel:
        torch.manual_seed(0)
        return simulation(Attributed(), x)

    assert_noticed(made, x, change)


def test_a_part_of_the_model_is_replaced() -> None:
    def change(sim: Any) -> None:
        torch.manual_seed(1)
        sim.model.b.weight = nn.Parameter(torch.randn(8, 8))

    def other_forward(sim: Any) -> None:
        sim.model.b.forward = lambda x: x

    for changed in (change, other_forward):
        assert_noticed(lambda: make("chain")[0], rows(5, 8), changed)


@pytest.mark.parametrize(
    "context",
    [
        lambda: torch.backends.mkldnn.flags(enabled=False),
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    ],
)
def test_settings_of_pytorch_are_noticed(
    context: Callable[[], AbstractContextManager[Any]],
) -> None:
    sim, x = make("chain")
    with sim.replaying(BUDGET):
        for _ in range(4):
            assert ran(sim, x) in ("abc", "")
        with context():
            assert ran(sim, x) == "abc"
            found = [y.float() for y in run(sim.model, x)]
    with context():
        assert same(found, [y.float() for y in run(sim.model, x)])


class Doubling(TorchFunctionMode):
    """Changes what linear layers give."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        return result * 2 if func is nn.functional.linear else result


def test_modes_of_the_user_see_every_op() -> None:
    sim, x = make("chain")
    with Doubling():
        expected = run(sim.model, x)
    with sim.replaying(BUDGET) as replay:
        for _ in range(4):
            run(sim.model, x)
        with Doubling():
            assert same(run(sim.model, x), expected)
        assert replay.given_up == ""


class Exposed(nn.Module):
    """Writes that no version counts, into a result of a layer."""

    def __init__(self, write: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.write = write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        if not torch.jit.is_tracing():
            self.write(y)
        return self.b(y)


def halve_array(y: torch.Tensor) -> None:
    y.numpy()[...] *= 0.5


def test_a_result_that_the_model_writes_unseen_is_not_kept() -> None:
    x = rows(5, 8)
    torch.manual_seed(0)
    sim = simulation(Exposed(halve_array), x)
    expected = run(sim.model, x)
    with sim.replaying(BUDGET):
        for _ in range(6):
            assert same(run(sim.model, x), expected)


class WritesInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.mul_(0.5)
        return self.a(x)


def test_inputs_that_the_model_writes_into_are_the_callers() -> None:
    x = rows(5, 8)
    torch.manual_seed(0)
    sim = simulation(WritesInput(), x)
    sim.apply_precisions(["fp32"] * len(sim.precisions()))  # no copy of the input
    written_over = x.clone()
    with torch.no_grad():
        expected = sim.model(written_over)
    with sim.replaying(BUDGET) as replay, torch.no_grad():
        for _ in range(5):
            mine = x.clone()
            assert torch.equal(sim.model(mine), expected)
            assert torch.equal(mine, written_over)
        assert replay.given_up == "the model writes into its inputs"
