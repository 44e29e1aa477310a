# SPDX-License-Identifier: BSD-3-Clause
"""Weights that functions read: techniques that work on modules say which of them they
leave alone, and what leaves a simulation has them quantized.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aimetpp.adaround import Adaround, AdaroundParameters
from aimetpp.bias_correction import correct_bias
from aimetpp.quantsim import QuantizationSimModel, QuantParams
from aimetpp.seq_mse import apply_seq_mse


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.weight = nn.Parameter(torch.eye(4))
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x):
        y = F.linear(self.first(x), self.weight)
        return self.attention(y, y, y, need_weights=False)[0]


BATCHES = [torch.randn(8, 3, 4, generator=torch.Generator().manual_seed(0))]


def round_weights(model, folder):
    params = AdaroundParameters(BATCHES, 1, default_num_iterations=1)
    Adaround.apply_adaround(model, BATCHES[0], params, folder, "net")


def correct(model, folder):
    correct_bias(model, QuantParams(quant_scheme="min_max"), 8, BATCHES, 8)


def search(model, folder):
    sim = QuantizationSimModel(model, BATCHES[0])
    apply_seq_mse(sim, BATCHES, num_candidates=2)


@pytest.mark.parametrize("technique", [round_weights, correct, search])
def test_weights_that_functions_read_are_named(technique, tmp_path):
    torch.manual_seed(0)
    model = Net().eval()
    with pytest.warns(RuntimeWarning, match=r"stays as it is: weight, .*in_proj"):
        technique(model, tmp_path)


def test_models_of_modules_warn_of_nothing(recwarn, tmp_path):
    correct(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval(), tmp_path)
    assert "functions read" not in "".join(str(w.message) for w in recwarn)


def test_the_original_model_takes_their_quantized_values():
    torch.manual_seed(0)
    sim = QuantizationSimModel(Net().eval(), BATCHES[0], default_param_bw=4)
    sim.int32_bias = False
    sim.compute_encodings(lambda model: model(BATCHES[0]))
    kinds = [entry.kind for entry in sim._bank.entries]
    weights_only = [
        precision if kind == "param" else "fp32"
        for precision, kind in zip(sim.precisions(), kinds, strict=True)
    ]
    sim.apply_precisions(weights_only)
    for quantized in (sim, sim.model):
        original = QuantizationSimModel.get_original_model(quantized, qdq_weights=True)
        torch.testing.assert_close(original(BATCHES[0]), sim.model(BATCHES[0]))
    with pytest.raises(ValueError, match="qdq_weights needs the simulation"):
        sim.get_original_model(copy.deepcopy(sim.model), qdq_weights=True)
