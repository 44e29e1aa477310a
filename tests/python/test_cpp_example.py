# SPDX-License-Identifier: BSD-3-Clause
"""examples/cpp: a LibTorch program that runs an exported simulation."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import aimetpp
from aimetpp.quantsim import QuantizationSimModel

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "cpp"
TOOLS = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))

pytestmark = pytest.mark.skipif(
    torch.version.cuda is not None,
    reason="find_package(Torch) of a CUDA build asks for a full CUDA toolkit",
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x, shift):
        y = torch.relu(self.conv(x)) + shift
        return self.fc(y.mean((2, 3))), y


def configure(folder, prefix_path):
    command = [shutil.which("cmake", path=TOOLS), "-S", str(EXAMPLE), "-B", str(folder)]
    command += [f"-DCMAKE_PREFIX_PATH={prefix_path}"]
    if shutil.which("ninja", path=TOOLS):
        command += ["-G", "Ninja"]
    if shutil.which("ccache"):
        command += ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"]
    environment = {**os.environ, "PATH": TOOLS}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    configured = configure(folder, aimetpp.cmake_prefix_path())
    assert configured.returncode == 0, configured.stderr
    command = [shutil.which("cmake", path=TOOLS), "--build", str(folder)]
    environment = {**os.environ, "PATH": TOOLS}
    built = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "run_simulation"


def run(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def test_outputs_are_the_simulations_to_the_bit(program, tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 2, 6, 6, generator=generator)
    shift = torch.randn(6, generator=generator)
    torch.manual_seed(0)
    sim = QuantizationSimModel(Net().eval(), (x[:1], shift), default_param_bw=4)
    sim.compute_encodings(lambda model: model(x, shift))
    precisions = sim.precisions()
    precisions[-1] = "fp16"
    sim.apply_precisions(precisions)
    sim.export_torchscript(tmp_path / "net.pt")
    torch.save((x, shift), tmp_path / "x.pt")
    ran = run(program, *(tmp_path / name for name in ("net.pt", "x.pt", "y.pt")))
    assert ran.returncode == 0, ran.stderr
    with torch.no_grad():
        want = sim.model(x, shift)
    got = torch.load(tmp_path / "y.pt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_what_is_missing_is_said(program, tmp_path):
    ran = run(program, "no_model.pt", "x.pt", "y.pt")
    assert ran.returncode == 1 and "no_model.pt" in ran.stderr
    assert run(program).returncode == 2


# A copy of the package's folder as it would be without compiled libraries, and one
# of another PyTorch's.
@pytest.mark.parametrize(
    ("info", "message"),
    [
        (None, "holds no compiled libaimetpp.so"),
        (
            '{"torch_version": "1.0.0+cpu", "cuda": ""}',
            "compiled against PyTorch 1.0.0",
        ),
    ],
)
def test_cmake_says_what_does_not_fit(tmp_path, info, message):
    package = Path(aimetpp.__file__).parent
    copied = tmp_path / "package"
    shutil.copytree(package / "share", copied / "share")
    if info is not None:
        (copied / "_build_info.json").write_text(info)
        (copied / "libaimetpp.so").write_text("")
    prefix = f"{torch.utils.cmake_prefix_path};{copied}"
    configured = configure(tmp_path / "build", prefix)
    assert configured.returncode != 0
    assert message in " ".join(configured.stderr.split())
