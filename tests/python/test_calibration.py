# SPDX-License-Identifier: BSD-3-Clause
"""Calibration of a simulation: one way for parameters, kept statistics, memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aimetpp import nn as quantized_nn
from aimetpp.nn.wrap import release_kept_weights
from aimetpp.quantsim import QuantizationSimModel

SCHEMES = ["min_max", "tf_enhanced", "percentile", "mse"]


class Net(torch.nn.Module):
    """A convolution, its weight read again by a functional op, a reused ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.relu = torch.nn.ReLU()
        self.scale = torch.nn.Parameter(torch.rand(8, 1, 1))
        self.head = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv(x)) * self.scale
        return self.head(self.relu(x).mean((2, 3)))


@pytest.fixture
def data() -> list[torch.Tensor]:
    torch.manual_seed(3)
    return [torch.randn(2, 3, 8, 8) * size for size in (1.0, 3.0, 0.5)]


def make(scheme: str = "min_max") -> QuantizationSimModel:
    torch.manual_seed(2)
    return QuantizationSimModel(Net(), torch.randn(1, 3, 8, 8), quant_scheme=scheme)


def calibrate(sim: QuantizationSimModel, data: list[torch.Tensor]) -> None:
    sim.compute_encodings(lambda model: [model(x) for x in data])


def all_encodings(sim: QuantizationSimModel) -> dict[str, Any]:
    return {name: q.get_encodings() for name, q in sim.named_quantizers()}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_context_and_the_method_give_the_same(
    scheme: str, data: list[torch.Tensor]
) -> None:
    by_method, by_context = make(scheme), make(scheme)
    calibrate(by_method, data)
    by_context.model.eval()
    with torch.no_grad(), quantized_nn.compute_encodings(by_context.model):
        for x in data:
            by_context.model(x)
    assert by_context.is_calibrated()
    assert all_encodings(by_context) == all_encodings(by_method)


def test_a_parameter_that_a_functional_op_reads_is_quantized_while_calibrating(
    data: list[torch.Tensor],
) -> None:
    sim = make()
    site = next(s for s in sim.sites() if s.kind == "param" and "scale" in s.name)
    seen = []
    assert site.quantizer is not None
    site.quantizer.register_forward_hook(
        lambda module, args, result: seen.append(torch.equal(args[0], result))
    )
    calibrate(sim, data)
    assert seen == [False] * len(data)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bitwidth", [4, 16])
def test_another_bitwidth_needs_no_data(
    scheme: str, bitwidth: int, data: list[torch.Tensor]
) -> None:
    later, at_once = make(scheme), make(scheme)
    for spec, quantizer in zip(
        at_once.placement.quantizers, at_once.quantizers_by_index, strict=True
    ):
        if spec.kind != "param":  # activations are seen behind 8-bit weights in both
            quantizer.bitwidth = bitwidth
    calibrate(later, data)
    calibrate(at_once, data)
    for one, other in zip(
        later.quantizers_by_index, at_once.quantizers_by_index, strict=True
    ):
        one.bitwidth = bitwidth
        other.bitwidth = bitwidth
        assert one.get_encodings() == other.get_encodings()


def test_unchanged_statistics_are_not_searched_again(
    data: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from aimetpp import _C

    sim = make("tf_enhanced")
    calibrate(sim, data)
    before = all_encodings(sim)
    calls = []
    search = _C.ranges_from_statistics

    def counted(*args: Any) -> Any:
        calls.append(args)
        return search(*args)

    monkeypatch.setattr(_C, "ranges_from_statistics", counted)
    calibrate(sim, data)
    assert not calls
    assert all_encodings(sim) == before
    with torch.no_grad():
        sim.model.head.weight.data.mul_(2)  # type: ignore[union-attr, operator]
    calibrate(sim, data)
    assert len(calls) == 2  # the weight, and the activation behind it


def test_channels_last_activations_give_the_same_statistics(
    data: list[torch.Tensor],
) -> None:
    plain, moved = make("tf_enhanced"), make("tf_enhanced")
    calibrate(plain, data)
    calibrate(moved, [x.to(memory_format=torch.channels_last) for x in data])
    site = plain.sites()[0]
    assert site.kind == "input"
    one, other = plain.sites()[0].quantizer, moved.sites()[0].quantizer
    assert one is not None
    assert other is not None
    assert one.statistics == other.statistics


def test_memory_report_counts_every_kind(data: list[torch.Tensor]) -> None:
    sim = make("tf_enhanced")
    report = sim.memory_report()
    assert set(report) == {
        "parameters",
        "buffers",
        "quantizer_ranges",
        "statistics",
        "derived_ranges",
        "cached_weights",
        "total",
    }
    net = Net()
    weights = sum(p.numel() for p in net.parameters()) * 4
    assert report["parameters"] == weights
    assert report["buffers"] == 0
    assert report["statistics"] == report["derived_ranges"] == 0
    ranges = {id(q): q.min.numel() for q in sim.quantizers_by_index}
    assert report["quantizer_ranges"] == sum(8 * n + 16 for n in ranges.values())
    sim.kept_weights = "all"
    calibrate(sim, data)
    calibrated = sim.memory_report()
    activations = sum(q.min.numel() == 1 for q in sim.quantizers_by_index)
    # Of each activation at least minimum and maximum, and at most 512 counts.
    assert 8 * activations < calibrated["statistics"] < 5000 * len(ranges)
    assert calibrated["total"] == sum(
        size for kind, size in calibrated.items() if kind != "total"
    )
    # Weights of leaf modules, quantized while calibrating.
    assert calibrated["cached_weights"] == weights - (8 + 8 + 4) * 4
    release_kept_weights(sim.model)
    for quantizer in sim.quantizers_by_index:
        quantizer.reset()
    assert sim.memory_report() == report


class Concatenation(torch.nn.Module):
    """Of a tensor, and one that is `factor` times as large."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = torch.nn.Linear(4, 6), torch.nn.Linear(4, 6)
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        larger = torch.sin(self.right(x)).exp() * self.factor
        return torch.cat([torch.sin(self.left(x)), larger], -1)


class Repeated(torch.nn.Module):
    """One layer four times, each result four times as large as the last."""

    def __init__(self) -> None:
        super().__init__()
        self.soft = torch.nn.Softplus()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(4):
            x = self.soft(x * 4)
        return x


@pytest.mark.parametrize(
    "model",
    [Concatenation(20.0), Concatenation(0.05), Repeated()],
    ids=["larger", "smaller", "again"],
)
def test_tensors_that_share_a_range_share_its_first_forward(
    model: torch.nn.Module,
) -> None:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    sim = QuantizationSimModel(
        model.eval(), x, "tf_enhanced", default_output_bw=16, default_param_bw=16
    )
    sim.compute_encodings(lambda m: m(x))
    with torch.no_grad():
        expected, result = model(x), sim.model(x)
    assert (result - expected).norm() < 1e-3 * expected.norm()
