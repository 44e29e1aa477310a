# SPDX-License-Identifier: BSD-3-Clause
"""A search that is killed goes on where it was, in whichever phase."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent

# Runs a whole search in a folder; kills itself before evaluation number `stop`.
RUN = """
import json, os, signal, sys
from pathlib import Path
from unittest import mock
sys.path.insert(0, sys.argv[1])
from amp_models import A16W8, A8W8, A16W16, Closeness, choose, make_sim

folder, stop, drop = Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])

class Killed(Closeness):
    stop = stop

    def __call__(self, model):
        if self.calls == self.stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(model)

sim = make_sim()
with mock.patch("aimetpp.amp.mixed_precision_algo.export_alphas"):
    result = choose(
        sim, folder, drop, metric=Killed(), clean_start=False,
        candidates=[A16W16, A16W8, A8W8], convert_op_reduction=True,
    )
print(json.dumps({
    "evaluations": result.evaluations,
    "rows": [[row[0], row[1], str(row[2]), str(row[3])] for row in result],
    "alphas": [[a.alpha, a.score, a.convert_cost, a.cost] for a in result.alphas],
    "precisions": sim.precisions(),
}))
"""


def run(folder: Path, stop: int, drop: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, str(HERE), str(folder), str(stop), str(drop)],
        cwd=HERE.parents[1],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


DROP = 0.00054


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run that nothing has stopped."""
    found = result_of(run(tmp_path_factory.mktemp("whole"), -1, DROP))
    assert found["rows"] and found["alphas"]
    return found


# The last evaluation is one of phase 3.
@pytest.mark.parametrize("place", ["phase 1", "phase 2", "phase 3"])
def test_a_killed_search_goes_on(
    place: str, whole: dict[str, Any], tmp_path: Path
) -> None:
    total = whole["evaluations"]
    stop = {"phase 1": 6, "phase 2": total - 3, "phase 3": total - 1}[place]
    killed = run(tmp_path, stop, DROP)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "pareto_list.json").exists()
    rest = result_of(run(tmp_path, -1, DROP))
    assert rest.pop("evaluations") == total - stop
    assert rest == {key: value for key, value in whole.items() if key != "evaluations"}
    assert list(tmp_path.glob(".*.json*")) == []  # no temporary file is left
