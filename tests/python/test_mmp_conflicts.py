# SPDX-License-Identifier: BSD-3-Clause
"""Manual mixed precision: requests that meet, and what each leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmp_models import make_sim

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
