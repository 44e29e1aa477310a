# SPDX-License-Identifier: BSD-3-Clause
"""Compares aimetpp's encodings with aimet-torch's, which has its own environment.

    python benchmarks/parity/run.py [--environment build/parity] [--update]

Makes the environment where it is missing (a few gigabytes: aimet-torch brings its own
PyTorch), lets aimet-torch write its encodings, and prints where aimetpp's differ.
--update replaces the golden files that the tests read. --interpreter takes an
environment that exists.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

FOLDER = Path(__file__).parent
GOLDEN = FOLDER.parents[1] / "tests" / "golden"
REQUIREMENT = "aimet-torch==2.42.0"


def reference_interpreter(environment: Path) -> Path:
    """The interpreter of an environment with aimet-torch, made where it is missing."""
    interpreter = environment / "bin" / "python"
    if not interpreter.exists():
        print(f"Installing {REQUIREMENT} into {environment}", flush=True)
        venv.create(environment, with_pip=True)
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", REQUIREMENT]
        subprocess.run(pip, check=True)
    return interpreter


def main(arguments: list[str]) -> int:
    """0 where all parameters are equal; what differs is printed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environment", type=Path, default=Path("build/parity"))
    parser.add_argument("--interpreter", type=Path)
    parser.add_argument("--update", action="store_true")
    args = parser.parse_args(arguments)
    interpreter = args.interpreter or reference_interpreter(args.environment)
    with tempfile.TemporaryDirectory() as temporary:
        output = GOLDEN if args.update else Path(temporary)
        for script, name in (
            (["ranges.py"], "encodings.json"),
            (["simulation.py", "write"], "simulation.json"),
        ):
            command = [interpreter, FOLDER / script[0], *script[1:], output / name]
            subprocess.run(list(map(str, command)), check=True)
        same = (output / "encodings.json").read_text() == (
            GOLDEN / "encodings.json"
        ).read_text()
        print(f"encodings.json: {'as' if same else 'NOT as'} committed")
        compare = [sys.executable, str(FOLDER / "simulation.py"), "compare"]
        done = subprocess.run([*compare, str(output / "simulation.json")], check=False)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
