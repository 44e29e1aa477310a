# SPDX-License-Identifier: BSD-3-Clause
"""Built-in metrics, on a model whose quantization error is known."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from aimetpp.amp.mixed_precision_algo import EvalCallbackFactory
from aimetpp.common.defs import CallbackFunc


class Model(torch.nn.Module):
    """Gives `scale * x`, and adds `error` to it while "quantized"."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))
        self.error = 0.0
        self.calls = 0
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.modes.append((self.training, torch.is_grad_enabled()))
        return self.scale * x + self.error


class Sim:
    """The part of a simulation that metrics use."""

    def __init__(self, model: torch.nn.Module, dummy_input: Any) -> None:
        self.model = model
        self.dummy_input = dummy_input

    @contextlib.contextmanager
    def quantizers_off(self) -> Iterator[None]:
        error, self.model.error = self.model.error, 0.0
        yield
        self.model.error = error


def make(scale: float = 1.0, error: float = 0.0, dummy: Any = None) -> Sim:
    model = Model(scale)
    model.error = error
    return Sim(model, torch.zeros(1, 4) if dummy is None else dummy)


X = torch.arange(24.0).reshape(6, 4) - 7


def batches(size: int, *more: torch.Tensor) -> list[Any]:
    parts = list(zip(*(t.split(size) for t in (X, *more)), strict=True))
    return [part[0] for part in parts] if not more else parts


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_defect_09_sqnr_does_not_depend_on_the_batch_size(size: int) -> None:
    sim = make(error=0.5)
    expected = 10 * math.log10(float(X.square().sum()) / (0.25 * 24))
    score = EvalCallbackFactory(batches(size)).sqnr(sim)(sim.model)
    assert score == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [1, 4])
def test_sqnr_cuts_the_last_batch(size: int) -> None:
    sim = make(error=0.5)
    expected = 10 * math.log10(float(X[:3].square().sum()) / (0.25 * 12))
    score = EvalCallbackFactory(batches(size)).sqnr(sim, 3)(sim.model)
    assert score == pytest.approx(expected, rel=1e-12)


def test_defect_09_sqnr_does_not_depend_on_the_scale_of_the_signal() -> None:
    """AIMET adds an absolute 1e-4 to the noise."""
    big, small = make(1.0, 1e-2), make(1e-3, 1e-5)
    factory = EvalCallbackFactory(batches(2))
    assert factory.sqnr(big)(big.model) == pytest.approx(
        factory.sqnr(small)(small.model), abs=1e-3
    )


def test_defect_48_sqnr_of_a_perfect_match_is_infinite() -> None:
    sim = make()
    assert EvalCallbackFactory(batches(2)).sqnr(sim)(sim.model) == math.inf
    silent = make(0.0, 0.5)
    assert EvalCallbackFactory(batches(2)).sqnr(silent)(silent.model) == -math.inf


def test_defect_12_labels_are_not_inputs() -> None:
    """AIMET gives a labelled batch to the model as it is: TypeError."""
    sim = make(error=0.5)
    plain = EvalCallbackFactory(batches(2)).sqnr(sim)(sim.model)
    labelled = EvalCallbackFactory(batches(2, torch.arange(6))).sqnr(sim)(sim.model)
    as_lists = EvalCallbackFactory([[b] for b in batches(2)]).sqnr(sim)(sim.model)
    assert plain == labelled == as_lists


def test_several_inputs_and_dicts_follow_the_dummy_input() -> None:
    class Add(Model):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + y

    model = Add()
    model.error = 0.5
    z = torch.zeros(6, 4)
    want = 10 * math.log10(float(X.square().sum()) / (0.25 * 24))
    pair = Sim(model, (torch.zeros(1, 4), torch.zeros(1, 4)))
    labels = torch.arange(6)
    for loader in (
        batches(2, z),
        batches(2, z, labels),
        [((x, y), label) for x, y, label in batches(2, z, labels)],
    ):
        score = EvalCallbackFactory(loader).sqnr(pair)(model)
        assert score == pytest.approx(want)
    named = Sim(model, {"x": torch.zeros(1, 4), "y": torch.zeros(1, 4)})
    dicts = [{"x": x, "y": y, "labels": label} for x, y, label in batches(2, z, labels)]
    assert EvalCallbackFactory(dicts).sqnr(named)(model) == pytest.approx(want)


def test_forward_fn_takes_the_whole_batch() -> None:
    sim = make(error=0.5)
    loader = [{"image": batch, "path": "a"} for batch in batches(2)]
    factory = EvalCallbackFactory(loader, lambda model, batch: model(batch["image"]))
    plain = EvalCallbackFactory(batches(2)).sqnr(sim)(sim.model)
    assert factory.sqnr(sim)(sim.model) == plain


def test_the_simulation_is_found_from_the_model() -> None:
    sim = make(error=0.5)
    sim.model.__dict__["_aimetpp_sim"] = weakref.ref(sim)
    factory = EvalCallbackFactory(batches(2))
    assert factory.sqnr(3)(sim.model) == factory.sqnr(sim, 3)(sim.model)
    with pytest.raises(RuntimeError, match="belongs to no QuantizationSimModel"):
        factory.sqnr()(Model())


def test_every_evaluation_sees_the_same_samples_and_references_are_kept() -> None:
    class Shuffled:
        def __iter__(self) -> Iterator[torch.Tensor]:
            return iter(X[torch.randperm(6)].split(2))

    sim = make(error=0.5)
    sqnr = EvalCallbackFactory(Shuffled()).sqnr(sim, 2)
    first = sqnr(sim.model)
    assert sim.model.calls == 2  # one batch, in float and quantized
    assert [sqnr(sim.model) for _ in range(5)] == [first] * 5
    assert sim.model.calls == 7
    with torch.no_grad():
        sim.model.scale.mul_(2)
    assert sqnr(sim.model) == pytest.approx(first + 20 * math.log10(2))


def test_runs_in_eval_mode_without_gradients() -> None:
    sim = make(error=0.5)
    sim.model.train()
    EvalCallbackFactory(batches(2)).sqnr(sim)(sim.model)
    assert set(sim.model.modes) == {(False, False)}
    assert sim.model.training


def test_l2_is_minus_the_root_mean_square() -> None:
    sim = make(error=0.5)
    score = EvalCallbackFactory(batches(4)).l2(sim)(sim.model)
    assert score == pytest.approx(-0.5)


def test_cosine_is_the_mean_over_samples() -> None:
    sim = make(error=0.5)
    total = 0.0
    for row in X.tolist():
        moved = [v + 0.5 for v in row]
        dot = sum(a * b for a, b in zip(row, moved, strict=True))
        total += dot / math.sqrt(sum(a * a for a in row) * sum(b * b for b in moved))
    score = EvalCallbackFactory(batches(4)).cosine(sim)(sim.model)
    assert score == pytest.approx(total / 6)
    silent = make(0.0)
    assert EvalCallbackFactory(batches(4)).cosine(silent)(silent.model) == 1


def test_kl_is_minus_the_divergence_of_the_softmax() -> None:
    class Sharper(Model):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * (1 + self.error)

    model = Sharper()
    model.error = 1.0
    sim = Sim(model, torch.zeros(1, 4))
    total = 0.0
    for row in X.tolist():
        p = [math.exp(v) for v in row]
        q = [math.exp(2 * v) for v in row]
        total += sum(
            a / sum(p) * math.log((a / sum(p)) / (b / sum(q)))
            for a, b in zip(p, q, strict=True)
        )
    score = EvalCallbackFactory(batches(4)).kl(sim)(sim.model)
    assert score == pytest.approx(-total / 6)


@pytest.mark.parametrize("size", [1, 4])
def test_loss_is_minus_the_mean_over_samples(size: int) -> None:
    sim = make(error=0.5)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    expected = torch.nn.functional.cross_entropy(X.double() + 0.5, labels)
    factory = EvalCallbackFactory(batches(size, labels))
    for reduction in ("mean", "none"):
        loss = torch.nn.CrossEntropyLoss(reduction=reduction)
        score = factory.loss(loss, sim)(sim.model)
        assert score == pytest.approx(-float(expected), rel=1e-5)
    with pytest.raises(TypeError, match="must hold labels"):
        EvalCallbackFactory(batches(2)).loss(loss, sim)(sim.model)


def test_callbacks_are_callback_funcs() -> None:
    assert isinstance(EvalCallbackFactory([X]).sqnr(3), CallbackFunc)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="data_loader must be an iterable"):
        EvalCallbackFactory(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="forward_fn must be callable"):
        EvalCallbackFactory([X], "model")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_samples must be positive, got 0"):
        EvalCallbackFactory([X]).sqnr(0)
    with pytest.raises(TypeError, match="num_samples must be an int or None, got 1.5"):
        EvalCallbackFactory([X]).sqnr(num_samples=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="first argument"):
        EvalCallbackFactory([X]).sqnr("all")
    sim = make()
    with pytest.raises(ValueError, match="has no batches"):
        EvalCallbackFactory([]).sqnr(sim)(sim.model)
