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
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests/python"))),
        },
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


def test_the_figures_of_post_training_techniques():
    chosen = ("nearest", "biases, measured means", "SeqMSE", "batch norms re-estimated")
    text = output_of("ptq.py", "--bits", "3", "--techniques", *chosen)
    rows = [[x.strip() for x in r.split("|")] for r in text.splitlines()[3:]]
    scores = {(r[1], r[2]): float(r[3].removesuffix(" %")) for r in rows}
    assert len(scores) == 8
    for ranges in ("per channel", "per tensor"):
        before = scores[f"3 bits, {ranges}", "nearest"]
        for name in chosen[1:]:
            assert scores[f"3 bits, {ranges}", name] > before + 5


def test_the_readmes_speed_table_is_part_of_the_results():
    results = (ROOT / "benchmarks/RESULTS.md").read_text().splitlines()
    section = (ROOT / "README.md").read_text().split("## How fast")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 5
    assert [row for row in rows if row not in results] == []


def test_the_table_of_speed_targets():
    text = output_of("speed.py", "--quick")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    named = " ".join(rows)
    assert len(rows) == 17
    assert "tiny sizes" in text and not {"yes", "no"} & set(named.split())
    for what in (
        *("64K", "1M", "per-channel", "16M", "QAT", "resnet18", "TF-Enhanced"),
        *("frozen range", "float8", "three grids", "a third of each row"),
    ):
        assert what in named
