# SPDX-License-Identifier: BSD-3-Clause
"""The benchmarks run; what they measure is nothing to fail on."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_of_speed_targets():
    command = [sys.executable, str(ROOT / "benchmarks" / "speed.py"), "--quick"]
    result = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    rows = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    named = " ".join(rows)
    assert len(rows) == 17
    for what in (
        *("64K", "1M", "per-channel", "16M", "QAT", "resnet18", "TF-Enhanced"),
        *("frozen range", "float8", "three grids", "a third of each row"),
    ):
        assert what in named
