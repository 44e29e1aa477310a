# SPDX-License-Identifier: BSD-3-Clause
"""Runs benchmarks/speed.py with other libraries in the same interleaved run.

    .venv/bin/python benchmarks/peers/run.py [arguments of speed.py]

Makes a virtual environment of its own, build/peers, with this environment's
PyTorch version and aimet-torch 2.42, brevitas and torchao, all installed without
dependencies, so that none brings another PyTorch; what they import besides is
listed here. A library that cannot be installed or imported is named and left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "peers"
PEERS = ("aimet-torch==2.42.0", "brevitas==0.13.4", "torchao==0.18.0")
# What the peers and this package import; installed one by one without dependencies.
IMPORTED = (
    *("numpy", "tqdm", "bokeh", "tornado", "jinja2", "markupsafe", "contourpy"),
    *("xyzservices", "pyyaml", "pillow", "packaging", "matplotlib", "torchvision"),
    *("onnx", "protobuf", "ml_dtypes", "onnx_ir", "onnxscript", "safetensors"),
    *("jsonschema", "attrs", "referencing", "rpds-py", "jsonschema-specifications"),
    *("psutil", "pandas", "python-dateutil", "pytz", "six", "hvplot", "holoviews"),
    *("panel", "param", "colorcet", "pyviz_comms", "markdown", "bleach", "requests"),
    *("dependencies==2.0.1", "unfoldNd", "scipy"),
)


def pip(*arguments: str) -> bool:
    """Installs; False where that fails."""
    command = [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "-q"]
    return subprocess.run([*command, *arguments], check=False).returncode == 0


def make_environment() -> None:
    """The virtual environment; finished ones are used again."""
    done = FOLDER / "done.txt"
    if done.is_file() and done.read_text(encoding="utf-8") == torch.__version__:
        return
    venv.create(FOLDER, with_pip=True, clear=True)
    version = torch.__version__
    if not (
        pip(f"torch=={version}")
        or pip(
            f"torch=={version}",
            "--extra-index-url",
            "https://download.pytorch.org/whl/cpu",
        )
    ):
        sys.exit(f"peers: PyTorch {version} cannot be installed into {FOLDER}")
    for package in (*PEERS, *IMPORTED):
        if not pip("--no-deps", package):
            print(f"peers: {package} cannot be installed", file=sys.stderr)
    done.write_text(version, encoding="utf-8")


def main() -> int:
    """Makes the environment and runs the benchmark in it."""
    make_environment()
    script = ROOT / "benchmarks" / "speed.py"
    command = [str(FOLDER / "bin" / "python"), str(script), "--peers", *sys.argv[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, check=False, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
