# SPDX-License-Identifier: BSD-3-Clause
"""The steps of AIMET's example of mixed precision for ONNX, under its module names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
from test_compat import run

SCRIPT = """
import math
import os
import numpy as np
import onnx
import onnxsim
import torch
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2
from tqdm import tqdm

from aimet_onnx.defs import DataLoader
from aimet_onnx.quantsim import QuantizationSimModel
from aimet_common.defs import QuantizationDataType, CallbackFunc
from aimet_onnx.mixed_precision import choose_mixed_precision
from datasets import load_dataset

pt_model = mobilenet_v2(weights=MobileNet_V2_Weights.DEFAULT)
dummy_input = torch.randn((1, 3, 32, 32))
torch.onnx.export(
    pt_model, (dummy_input,), 'mobilenet_v2.onnx',
    input_names=['input'], output_names=['output'],
    dynamic_axes={'input': {0: 'batch_size'}, 'output': {0: 'batch_size'}},
    dynamo=False,
)
model = onnx.load_model('mobilenet_v2.onnx')
try:
    model, _ = onnxsim.simplify(model)
except:
    print('ONNX Simplifier failed. Proceeding with unsimplified model')

dataset = load_dataset('ILSVRC/imagenet-1k', split='validation').shuffle()

class CustomDataLoader(DataLoader):
    def __init__(self, data, batch_size, iterations, unlabeled=True):
        super().__init__(data, batch_size, iterations)
        self._current_iteration = 0
        self._unlabeled = unlabeled

    def __iter__(self):
        self._current_iteration = 0
        return self

    def __next__(self):
        if self._current_iteration < self.iterations:
            start = self._current_iteration * self.batch_size
            end = start + self.batch_size
            self._current_iteration += 1
            batch_data = self._data[start:end]
            if self._unlabeled:
                return np.stack(batch_data['image'])
            return np.stack(batch_data['image']), np.stack(batch_data['label'])
        raise StopIteration

BATCH_SIZE = 8
unlabeled_data_loader = CustomDataLoader(
    dataset, BATCH_SIZE, math.ceil(16 / BATCH_SIZE))
eval_data_loader = CustomDataLoader(
    dataset, BATCH_SIZE, math.ceil(32 / BATCH_SIZE), unlabeled=False)

def forward_pass(session, _):
    input_name = session.get_inputs()[0].name
    for inputs in tqdm(unlabeled_data_loader):
        session.run(None, {input_name: inputs})

def evaluate(session, _):
    correct_predictions = 0
    total_samples = 0
    for inputs, labels in tqdm(eval_data_loader):
        input_name = sim.session.get_inputs()[0].name
        pred_probs, *_ = sim.session.run(None, {input_name: inputs})
        pred_labels = np.argmax(pred_probs, axis=1)
        correct_predictions += np.sum(pred_labels == labels)
        total_samples += labels.shape[0]
    return correct_predictions / total_samples

default_bitwidth = 16
candidates = [((16, QuantizationDataType.int), (16, QuantizationDataType.int)),
              ((16, QuantizationDataType.int), (8, QuantizationDataType.int)),
              ((8, QuantizationDataType.int), (16, QuantizationDataType.int))]
allowed_accuracy_drop = 0.5
eval_callback_for_phase_1 = CallbackFunc(evaluate, func_callback_args=None)
eval_callback_for_phase_2 = CallbackFunc(evaluate, func_callback_args=None)
forward_pass_callback = CallbackFunc(forward_pass, func_callback_args=None)

sim = QuantizationSimModel(model, default_param_bw=default_bitwidth,
                           default_activation_bw=default_bitwidth)
sim.compute_encodings(forward_pass_callback, forward_pass_callback_args=None)
pareto_front_list = choose_mixed_precision(
    sim, candidates, eval_callback_for_phase_1, eval_callback_for_phase_2,
    allowed_accuracy_drop, results_dir='./data', clean_start=True,
    forward_pass_callback=forward_pass_callback)
print(pareto_front_list)
allowed_accuracy_drop = 0.9
pareto_front_list = choose_mixed_precision(
    sim, candidates, eval_callback_for_phase_1, eval_callback_for_phase_2,
    allowed_accuracy_drop, results_dir='./data', clean_start=False,
    forward_pass_callback=forward_pass_callback)
print(pareto_front_list)
sim.export("./data", str(allowed_accuracy_drop))
"""

# Stand for the packages that bring model and data.
STAND_INS = {
    "torchvision/models.py": """
from torch import nn

class MobileNet_V2_Weights:
    DEFAULT = None

def mobilenet_v2(weights):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 4), nn.BatchNorm2d(4), nn.ReLU6(),
        nn.Conv2d(4, 4, 3, 2, groups=4), nn.BatchNorm2d(4), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
""",
    "torchvision/__init__.py": "",
    "onnxsim.py": "def simplify(model):\n    raise RuntimeError('not installed')\n",
    "datasets.py": """
import numpy as np

class Images:
    def __init__(self):
        self.images = np.random.default_rng(1).standard_normal((32, 3, 32, 32), 'f')

    def shuffle(self):
        return self

    def __getitem__(self, part):
        labels = np.arange(32) % 5
        return {'image': list(self.images[part]), 'label': list(labels[part])}

def load_dataset(name, split):
    return Images()
""",
}


@pytest.mark.parametrize("drop", ["0.9", "None"], ids=["as published", "whole curve"])
def test_the_example_of_mixed_precision_runs(tmp_path: Path, drop: str) -> None:
    for name, text in STAND_INS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = run(SCRIPT.replace("drop = 0.9", f"drop = {drop}"), tmp_path)
    assert done.returncode == 0, done.stderr
    info = dict(json.loads((tmp_path / "data" / "amp_info_list.json").read_text()))
    assert info["final relative bitops"] < 1
    points = json.loads((tmp_path / "data" / "pareto_list.json").read_text())
    if drop == "None":
        assert len(points) > 1
    else:  # so large a drop that the narrowest setting will do
        assert info["stop reason"] == "target_met_by_all_narrow"
    exported = onnx.load(str(tmp_path / "data" / f"{drop}.onnx"))
    assert {value.name for value in exported.graph.output} == {"output"}
    assert any(node.op_type == "QuantizeLinear" for node in exported.graph.node)


def test_without_onnxruntime_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from onnx_models import small_network

    from aimetpp.onnx import QuantizationSimModel

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'aimetpp\[onnx\]'"):
        QuantizationSimModel(small_network())
