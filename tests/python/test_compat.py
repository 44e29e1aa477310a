# SPDX-License-Identifier: BSD-3-Clause
"""Scripts written for AIMET, run as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aimetpp.compat import counterpart

# The steps of AIMET's example of mixed precision for PyTorch.
SCRIPT = """
import torch
import torchvision
from torch.utils.data import DataLoader
from tqdm import tqdm

from aimet_torch.batch_norm_fold import fold_all_batch_norms
from aimet_common.defs import QuantizationDataType, CallbackFunc
from aimet_torch.v1.mixed_precision import choose_mixed_precision
from aimet_torch.quantsim import QuantizationSimModel
from aimet_torch.amp.mixed_precision_algo import GreedyMixedPrecisionAlgo

device = "cuda:0" if torch.cuda.is_available() else "cpu"
model = torchvision.models.mobilenet_v2(pretrained=True).eval().to(device)

batch_size = 64
PATH_TO_IMAGENET = ...
data = torchvision.datasets.ImageNet(PATH_TO_IMAGENET, split="train")
data_loader = DataLoader(data, batch_size=batch_size)

dummy_input = torch.randn(1, 3, 224, 224).to(device)
fold_all_batch_norms(model, dummy_input.shape)

def forward_pass(model: torch.nn.Module, batches):
    with torch.no_grad():
        for batch, (images, _) in enumerate(data_loader):
            images = images.to(device)
            model(images)
            if batch >= batches:
                break

def evaluate(model, data_loader):
    model.eval()
    correct = 0
    with torch.no_grad():
        for data, labels in tqdm(data_loader):
            data, labels = data.to(device), labels.to(device)
            logits = model(data)
            correct += (logits.argmax(1) == labels).type(torch.float).sum().item()
    return correct / len(data_loader.dataset)

default_bitwidth = 16
candidates = [((16, QuantizationDataType.int), (16, QuantizationDataType.int)),
              ((16, QuantizationDataType.int), (8, QuantizationDataType.int)),
              ((8, QuantizationDataType.int), (16, QuantizationDataType.int))]
allowed_accuracy_drop = 0.5

eval_callback_for_phase_1 = CallbackFunc(evaluate, func_callback_args=data_loader)
eval_callback_for_phase_2 = CallbackFunc(evaluate, func_callback_args=data_loader)
calibration_batches = 10
forward_pass_call_back = CallbackFunc(forward_pass,
                                      func_callback_args=calibration_batches)

sim = QuantizationSimModel(model,
                           default_param_bw=default_bitwidth,
                           default_output_bw=default_bitwidth,
                           dummy_input=dummy_input)
sim.compute_encodings(forward_pass, forward_pass_callback_args=calibration_batches)

GreedyMixedPrecisionAlgo.ENABLE_CONVERT_OP_REDUCTION = True
pareto_front_list = choose_mixed_precision(
    sim, dummy_input, candidates, eval_callback_for_phase_1,
    eval_callback_for_phase_2, allowed_accuracy_drop, results_dir='./data',
    clean_start=True, forward_pass_callback=forward_pass_call_back)
print(pareto_front_list)

allowed_accuracy_drop = 0.9
pareto_front_list = choose_mixed_precision(
    sim, dummy_input, candidates, eval_callback_for_phase_1,
    eval_callback_for_phase_2, allowed_accuracy_drop, results_dir='./data',
    clean_start=False, forward_pass_callback=forward_pass_call_back)
print(pareto_front_list)
sim.export("./data", str(allowed_accuracy_drop), dummy_input)
"""

# Stands for torchvision: a model and a data set that are there.
STAND_IN = """
import torch
from torch import nn

class models:
    @staticmethod
    def mobilenet_v2(pretrained):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, 8), nn.BatchNorm2d(4), nn.ReLU6(),
            nn.Conv2d(4, 4, 3, 2, groups=4), nn.BatchNorm2d(4), nn.ReLU6(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))

class datasets:
    class ImageNet(torch.utils.data.Dataset):
        def __init__(self, path, split):
            generator = torch.Generator().manual_seed(1)
            self.images = torch.randn(32, 3, 224, 224, generator=generator)

        def __len__(self):
            return len(self.images)

        def __getitem__(self, index):
            return self.images[index], index % 5
"""


def run(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(script)
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "aimetpp.compat", "script.py", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, str(folder)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


@pytest.mark.parametrize(
    ("drops", "stop_reason"),
    [(("0.5", "0.9"), "target_met_by_all_narrow"), (("None", "None"), "complete")],
    ids=["as published", "whole curve"],
)
def test_the_example_of_mixed_precision_runs(
    tmp_path: Path, drops: tuple[str, str], stop_reason: str
) -> None:
    (tmp_path / "torchvision.py").write_text(STAND_IN)
    script = SCRIPT.replace("drop = 0.5", f"drop = {drops[0]}")
    done = run(script.replace("drop = 0.9", f"drop = {drops[1]}"), tmp_path)
    assert done.returncode == 0, done.stderr
    data = tmp_path / "data"
    info = dict(json.loads((data / "amp_info_list.json").read_text()))
    assert info["stop reason"] == stop_reason
    assert info["final relative bitops"] < 1
    points = json.loads((data / "pareto_list.json").read_text())
    assert len(points) > 1 or stop_reason != "complete"
    for alpha in ("0.0", "0.2", "0.4", "0.6", "0.8", "1.0"):
        assert (data / f"AMP_phase_3_data_alpha_{alpha}.json").exists()
    for suffix in (".onnx", ".encodings", "_torch.encodings"):
        assert (data / f"{drops[1]}{suffix}").exists()


def test_names_are_the_same_objects_under_every_path(tmp_path: Path) -> None:
    script = """
import sys
import aimet_torch
import aimet_torch.v2 as aimet
import aimet_torch.v2.quantization.affine as affine
from aimet_torch.v2.nn import QuantizationMixin
from aimet_torch.v1.quantsim import QuantizationSimModel
from aimet_torch.quantsim import QuantizationSimModel as again
from aimet_common.amp.utils import AMPSearchAlgo
import aimetpp.nn, aimetpp.quantization.affine
assert QuantizationSimModel is again
assert affine is aimetpp.quantization.affine
assert QuantizationMixin is aimetpp.nn.QuantizationMixin
assert __name__ == "__main__" and sys.argv == ["script.py", "--flag", "3"]
import helper
assert helper.VALUE == 7
try:
    import aimet_torch.elsewhere
except ModuleNotFoundError as error:
    print(error)
"""
    (tmp_path / "helper.py").write_text("VALUE = 7\n")
    done = run(script, tmp_path, "--flag", "3")
    assert done.returncode == 0, done.stderr
    assert "aimet_torch.elsewhere: aimetpp has no module aimetpp.elsewhere" in (
        done.stdout
    )


def test_an_error_of_the_script_is_its_own(tmp_path: Path) -> None:
    done = run("raise KeyError('mine')", tmp_path)
    assert done.returncode == 1
    assert "script.py" in done.stderr and "KeyError: 'mine'" in done.stderr
    (tmp_path / "script.py").unlink()
    missing = subprocess.run(
        [sys.executable, "-m", "aimetpp.compat", str(tmp_path / "none.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert missing.returncode == 2 and "no such file" in missing.stderr


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("aimet_torch", "aimetpp"),
        ("aimet_torch.v1.mixed_precision", "aimetpp.mixed_precision"),
        ("aimet_torch.v2.quantization.affine", "aimetpp.quantization.affine"),
        ("aimet_common.defs", "aimetpp.common.defs"),
        ("aimet_onnx.amp.quantizer_groups", "aimetpp.onnx.amp.quantizer_groups"),
        ("aimet_torchvision", None),
        ("numpy", None),
    ],
)
def test_counterparts(name: str, module: str | None) -> None:
    assert counterpart(name) == module
