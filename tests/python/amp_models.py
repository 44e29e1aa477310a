# SPDX-License-Identifier: BSD-3-Clause
"""A small calibrated simulation, and a metric on it, for the tests of AMP."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from aimetpp.amp.results import ParetoList
from aimetpp.common.defs import QuantizationDataType
from aimetpp.mixed_precision import choose_mixed_precision
from aimetpp.quantsim import QuantizationSimModel

INT, FLOAT = QuantizationDataType.int, QuantizationDataType.float
A16W16 = ((16, INT), (16, INT))
A16W8 = ((16, INT), (8, INT))
A8W16 = ((8, INT), (16, INT))
A8W8 = ((8, INT), (8, INT))
A8W4 = ((8, INT), (4, INT))
A4W4 = ((4, INT), (4, INT))
CANDIDATES = [A16W16, A8W8, A4W4]


# Such small tensors are faster without threads.
torch.set_num_threads(1)


class Net(nn.Module):
    """Two convolutions, a residual add, a concatenation, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv1(x))
        y = self.conv2(x) + x
        z = torch.cat([x, y], dim=1)
        return self.fc(z.mean((2, 3)))


def images() -> torch.Tensor:
    return torch.randn(16, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def make_net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net().eval()


def make_sim(calibrate: bool = True, **options: Any) -> QuantizationSimModel:
    settings = {"default_output_bw": 16, "default_param_bw": 16, **options}
    sim = QuantizationSimModel(make_net(), images()[:1], **settings)
    if calibrate:
        sim.compute_encodings(forward_pass)
    return sim


def forward_pass(model: nn.Module, _: Any = None) -> None:
    model(images())


class Closeness:
    """Minus the root mean square distance to the float model; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.target = make_net()(images()).detach()

    def __call__(self, model: nn.Module) -> float:
        self.calls += 1
        with torch.no_grad():
            distance = (model(images()) - self.target).square().mean().sqrt()
        return -float(distance)


def choose(
    sim: Any,
    folder: Path,
    drop: float | None = None,
    pages: bool = False,
    **options: Any,
) -> ParetoList:
    """choose_mixed_precision with the arguments that a test does not care about.

    Without `pages` no HTML is written, which takes longer than the search.
    """
    metric = options.pop("metric", None) or Closeness()
    settings: dict[str, Any] = {
        "dummy_input": images()[:1],
        "candidates": CANDIDATES,
        "eval_callback_for_phase1": metric,
        "eval_callback_for_phase2": metric,
        "clean_start": True,
        "forward_pass_callback": None,
        "progress": False,
        **options,
    }
    quick = mock.patch("aimetpp.amp.result_files.write_pages")
    with contextlib.nullcontext() if pages else quick:
        return choose_mixed_precision(
            sim, allowed_accuracy_drop=drop, results_dir=folder, **settings
        )


def bits(sim: Any) -> dict[str, str]:
    """The precision of each quantizer, by the name of its first site."""
    return {
        sim.graph.site_name(spec.sites[0]): precision
        for spec, precision in zip(
            sim.placement.quantizers, sim.precisions(), strict=True
        )
    }


def assert_untouched(sim: Any, act: Callable[[], Any], error: type, match: str) -> None:
    """`act` raises, and leaves precisions, ranges and outputs as they were."""
    before = sim.precisions()
    ranges = [q.get_encodings() for q in sim.quantizers_by_index]
    output = sim.model(images())
    with pytest.raises(error, match=match):
        act()
    assert sim.precisions() == before
    assert [q.get_encodings() for q in sim.quantizers_by_index] == ranges
    assert torch.equal(sim.model(images()), output)
