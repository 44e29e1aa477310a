# SPDX-License-Identifier: BSD-3-Clause
"""Two ranks that each calibrate on half of the data have the ranges of all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from calibration_rank import SCHEMES, batches, calibrate, ranges, simulation

SCRIPT = Path(__file__).with_name("calibration_rank.py")


def run_ranks(folder: Path, mode: str) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of each rank."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")]
        ),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder / "store"), str(rank), mode],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=500) for process in processes]
    codes = [process.returncode for process in processes]
    return [(code, *output) for code, output in zip(codes, outputs, strict=True)]


def found_by_ranks(folder: Path, mode: str) -> list[dict[str, Any]]:
    outputs = run_ranks(folder, mode)
    assert [code for code, _, _ in outputs] == [0, 0], outputs
    return [json.loads(out) for _, out, _ in outputs]


def found_alone(scheme: str) -> list[list[float]]:
    sim = simulation(scheme)
    calibrate(sim, batches())
    return ranges(sim)


def test_ranges_are_those_of_all_data(tmp_path: Path) -> None:
    first, second = found_by_ranks(tmp_path, "shares")
    assert first == second
    for scheme in SCHEMES:
        assert first[scheme]["uncalibrated"] == []
        found, expected = first[scheme]["ranges"], found_alone(scheme)
        half = simulation(scheme)
        calibrate(half, batches()[:3])
        assert found != ranges(half)
        if scheme == "min_max":
            assert found == expected
            continue
        for ours, theirs in zip(found, expected, strict=True):
            width = max(theirs) - min(theirs)
            # Where the search of tf_enhanced and mse has its least error may move
            # by a candidate, a percentile by a bin.
            share = {"percentile": 1 / 512}.get(scheme, 1 / 16)
            close = torch.tensor(ours) - torch.tensor(theirs)
            assert float(close.abs().max()) <= width * share, scheme


def test_a_rank_without_data_has_the_ranges_of_the_others(tmp_path: Path) -> None:
    first, second = found_by_ranks(tmp_path, "one share")
    assert first["percentile"]["ranges"] == found_alone("percentile")
    # Weights are each rank's own: rank 1 has not calibrated them.
    assert all("weight" in name for name in second["percentile"]["uncalibrated"])
    activations = [
        (ours, theirs)
        for ours, theirs in zip(
            first["percentile"]["ranges"], second["percentile"]["ranges"], strict=True
        )
        if ours == theirs
    ]
    assert len(activations) >= 3


@pytest.mark.parametrize(
    ("mode", "errors"),
    [
        ("other model", ["must simulate the same model"] * 2),
        ("dies", ["rank 1 has died", ""]),
    ],
)
def test_ranks_that_cannot_be_merged(
    tmp_path: Path, mode: str, errors: list[str]
) -> None:
    for (code, _, err), expected in zip(run_ranks(tmp_path, mode), errors, strict=True):
        assert expected in err
        assert (code != 0) == bool(expected)


def test_alone_there_is_nobody_to_merge_with() -> None:
    sim = simulation("min_max")
    calibrate(sim, batches())
    with pytest.raises(RuntimeError, match="merge_calibration: .* torchrun"):
        sim.merge_calibration()
