# SPDX-License-Identifier: BSD-3-Clause
"""Techniques that work on modules say which weights they leave alone."""

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
