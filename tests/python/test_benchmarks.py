# SPDX-License-Identifier: BSD-3-Clause
"""The benchmarks run; what they measure is nothing to fail on."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def output_of(script, *options):
    result = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *options],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return result.stdout


def test_ops_beside_a_copy():
    """On the CPU what runs on a GPU with --device cuda."""
    options = ("--sizes", "1024", "8192", "--rounds", "1", "--dtype", "bfloat16")
    text = output_of("fake_quant.py", *options)
    assert text.startswith("device cpu (")
    for what in ("1024 elements, bfloat16", "8192 elements", "x copy", "x torch"):
        assert what in text
    for what in ("per channel", "every second", "observed", "e4m3", "learned range "):
        lines = [line for line in text.splitlines() if what in line]
        assert len(lines) >= 2
        assert all(float(line.split()[-4]) > 0 for line in lines)


def test_the_table_of_speed_targets():
    text = output_of("speed.py", "--quick")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    named = " ".join(rows)
    assert len(rows) == 17
    for what in (
        *("64K", "1M", "per-channel", "16M", "QAT", "resnet18", "TF-Enhanced"),
        *("frozen range", "float8", "three grids", "a third of each row"),
    ):
        assert what in named
