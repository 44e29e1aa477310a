# SPDX-License-Identifier: BSD-3-Clause
"""Manual mixed precision: requests that meet, and what each leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmp_models import changed, make_sim

from aimetpp.mixed_precision import MixedPrecisionConfigurator


def test_strict_conflict_names_both_calls():
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("fc", None)
    mmp.set_precision("conv3", "int16")
    mmp.set_precision("block.conv", "int4")
    with pytest.raises(RuntimeError) as error:
        mmp.apply(None)
    lines = Path(__file__).read_text().splitlines()
    for number, call in [(2, '("conv3", "int16")'), (3, '("block.conv", "int4")')]:
        place = str(error.value).split(f"request {number} (")[1].split(")")[0]
        source = int(place.rsplit(":", 1)[1])
        assert place.split(", ")[1].startswith("test_mmp_conflicts.py:")
        assert call in lines[source - 1]


class TwoReaders(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(4, 4)
        self.b = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.a(x), self.b(x)


@pytest.mark.parametrize("reader", ["a", "b"])
def test_a_model_input_and_one_of_its_readers_are_no_conflict_in_either_order(reader):
    def input_after(model_first: bool) -> str:
        sim = make_sim(TwoReaders(), torch.randn(2, 4))
        mmp = MixedPrecisionConfigurator(sim)
        if model_first:
            mmp.set_model_input_precision("int4")
        mmp.set_precision(reader, "int16")
        if not model_first:
            mmp.set_model_input_precision("int4")
        mmp.apply(None)
        return changed(sim)["a.input.0"]

    assert input_after(model_first=True) == "int16"
    assert input_after(model_first=False) == "int4"
