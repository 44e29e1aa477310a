# SPDX-License-Identifier: BSD-3-Clause
"""The code in docs/ptq.md and docs/qat.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from ptq_models import with_statistics
from torch import nn

from aimetpp import adaround
from aimetpp.quantsim import QuantizationSimModel

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def snippets(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)


def surroundings() -> dict[str, Any]:
    """What the pages take as given, with weights of its own for each snippet."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=16),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    with_statistics(model)
    batches = [(torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0]))] * 2

    def calibrate(model):
        for images, _ in batches:
            model(images)

    sim = QuantizationSimModel(model, batches[0][0][:1])
    sim.compute_encodings(calibrate)
    return {
        "model": model,
        "sim": sim,
        "dummy_input": batches[0][0][:1],
        "data_loader": batches,
        "loader": batches,
        "calibrate": calibrate,
        "loss_of": nn.functional.cross_entropy,
    }


@pytest.mark.parametrize("page", ["ptq.md", "qat.md"])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(adaround, "_NARROW_ITERATIONS", 3)
    names: dict[str, Any] = {}
    assert snippets(page)
    for number, code in enumerate(snippets(page)):
        names.update(surroundings())
        exec(compile(code, f"{page}, snippet {number}", "exec"), names)
