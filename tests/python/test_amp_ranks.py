# SPDX-License-Identifier: BSD-3-Clause
"""A search shared by two processes gives what one process gives."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from amp_models import choose, make_sim
from amp_rank import DROP, summary

SCRIPT = Path(__file__).with_name("amp_rank.py")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(
        [str(SCRIPT.parents[2]), str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")]
    ),
    "OMP_NUM_THREADS": "1",
}


Found = dict[str, Any]


def run_ranks(
    folder: Path, mode: str, codes: tuple[int, int] = (0, 0), says: str = ""
) -> list[list[Found]]:
    """What each rank that lives has found: the profile, and with an allowed drop.

    `says` matches what they write on stderr.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder / "shared"), mode],
            env={
                **ENVIRONMENT,
                "AMP_RANK": str(rank),
                "AMP_STORE": str(folder / "store"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=500) for process in processes]
    errors = "\n".join(err for _, err in outputs)
    assert tuple(sorted(p.returncode for p in processes)) == tuple(sorted(codes)), (
        errors
    )
    assert re.search(says, errors), errors
    return [list(map(json.loads, out.splitlines())) for out, _ in outputs if out]


def journal(folder: Path) -> list[tuple[str, tuple[int, ...], float]]:
    lines = (folder / ".cache" / "evaluations.jsonl").read_text().splitlines()[1:]
    records = [json.loads(line) for line in lines]
    return sorted((r["phase"], tuple(r["assignment"]), r["score"]) for r in records)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Found]]:
    """The same searches in one process: their folder, and what they found."""
    folder = tmp_path_factory.mktemp("alone")
    found = []
    for drop in (None, DROP):
        sim = make_sim()
        result = choose(sim, folder / str(drop), drop)
        found.append(summary(result, sim) | {"ranks": 2})
    return folder, json.loads(json.dumps(found))  # as it comes from another process


def assert_equal_files(folder: Path, expected: Path) -> None:
    for drop in ("None", str(DROP)):
        assert journal(folder / drop) == journal(expected / drop)
        name = f"{drop}/pareto_list.json"
        assert (folder / name).read_text() == (expected / name).read_text()


def test_two_ranks_find_what_one_process_finds(
    alone: tuple[Path, list[Found]], tmp_path: Path
) -> None:
    folder, expected = alone
    ranks = run_ranks(tmp_path, "lives")
    for index, found in enumerate(expected):
        calls = [rank[index].pop("calls") for rank in ranks]
        assert sum(calls) == sum(found["evaluations"].values())
        assert index > 0 or all(calls)
    assert ranks == [expected, expected]
    assert_equal_files(tmp_path / "shared", folder)


def test_a_killed_rank_loses_its_current_evaluation_only(
    alone: tuple[Path, list[Found]], tmp_path: Path
) -> None:
    folder, expected = alone
    (rank,) = run_ranks(tmp_path, "dies", (0, -9))
    # Rank 1 has finished one evaluation before it was killed in the next.
    lost = [
        sum(found["evaluations"].values()) - mine.pop("calls")
        for found, mine in zip(expected, rank, strict=True)
    ]
    assert lost == [1, 0]
    assert rank == expected
    assert_equal_files(tmp_path / "shared", folder)


def test_a_metric_may_read_the_rank(
    alone: tuple[Path, list[Found]], tmp_path: Path
) -> None:
    _, expected = alone
    ranks = run_ranks(tmp_path, "reads")
    for index, found in enumerate(expected):
        calls = sum(rank[index].pop("calls") for rank in ranks)
        # The rank that did not begin scores one setting that the other one has.
        assert calls == sum(found["evaluations"].values()) + 1
    assert ranks == [expected, expected]


def test_a_rank_that_scores_its_share_of_the_data_is_refused(tmp_path: Path) -> None:
    says = (
        r"`rank` in RankReading is \d here and \d there.* must score the same samples"
    )
    ranks = run_ranks(tmp_path, "shares", (0, 1), says)
    assert len(ranks) == 1 and len(ranks[0]) == 2  # the other one goes on alone


def test_under_torchrun_no_process_group_is_needed(
    alone: tuple[Path, list[Found]], tmp_path: Path
) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    arguments = ["--nproc-per-node=2", str(SCRIPT), str(tmp_path / "shared"), "lives"]
    done = subprocess.run(
        launcher + arguments,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line]
    calls = sum(each.pop("calls") for each in found)
    folder, expected = alone
    assert calls == sum(sum(each["evaluations"].values()) for each in expected)
    assert sorted(found, key=str) == sorted(expected * 2, key=str)
    assert_equal_files(tmp_path / "shared", folder)
