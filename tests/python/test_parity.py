# SPDX-License-Identifier: BSD-3-Clause
"""Encodings of a simulation beside aimet-torch's, which are in a golden file.

tests/cpp/quantizer/test_golden.cpp compares ranges on given data; here the data of
activations come from the quantized model itself.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from aimetpp.quantsim import QuantizationSimModel

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "simulation.json").read_text())
# aimet-torch looks for an integer grid on which weights lie. Among 2^15 candidates for
# the step it finds one for a few random numbers, such as the 9 of a depthwise kernel.
GRID_FOUND = ("depthwise.param.weight", "up.param.weight")


@pytest.fixture(scope="module")
def parity() -> Any:
    path = ROOT / "benchmarks" / "parity" / "simulation.py"
    spec = importlib.util.spec_from_file_location("parity_simulation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)  # as where it runs as a script
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


def title(result: dict[str, Any]) -> str:
    bits = f"A{result['activation']}W{result['param']}"
    return f"{result['scheme']}-{bits}-{result['config']}"


@pytest.mark.parametrize("result", GOLDEN["results"], ids=title)
def test_simulation_chooses_what_aimet_chooses(
    parity: Any, result: dict[str, Any]
) -> None:
    ours = parity.simulate(
        QuantizationSimModel,
        result["scheme"],
        result["activation"],
        result["param"],
        result["config"],
    )
    theirs = result["encodings"]
    assert ours.keys() == theirs.keys()
    per_channel_16_bits = result["param"] == 16 and result["config"] == "default"
    for name, encoding in theirs.items():
        if per_channel_16_bits and name in GRID_FOUND:
            assert ours[name]["scale"] != encoding["scale"]
            continue
        assert ours[name]["offset"] == encoding["offset"], name
        # To the last bit, but for what comes after those weights, and for weights
        # whose scale aimet-torch makes a range and a scale again (one bit).
        behind = per_channel_16_bits and name == "head.output.0"
        tolerance = 1e-5 if behind else 1.2e-7 if "depthwise" in name else 0
        assert ours[name]["scale"] == pytest.approx(
            encoding["scale"], rel=tolerance, abs=0
        ), name
