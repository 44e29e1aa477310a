# SPDX-License-Identifier: BSD-3-Clause
"""Weights that were quantized before keep their grid where that is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aimetpp.quantsim import QuantizationSimModel
from aimetpp.quantsim.config_utils import (
    adopt_weight_grids,
    set_blockwise_quantization_for_weights,
)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.head = torch.nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


def quantized_per_tensor(weight: torch.Tensor, bitwidth: int) -> torch.Tensor:
    """As a per-tensor converter leaves weights: few channels reach the last step."""
    last = 2 ** (bitwidth - 1) - 1
    scale = float(weight.abs().max()) / last
    return torch.fake_quantize_per_tensor_affine(weight, scale, 0, -last - 1, last)


def make(bitwidth: int) -> tuple[QuantizationSimModel, torch.Tensor]:
    torch.manual_seed(7)
    net = Net().eval()
    with torch.no_grad():
        for parameter in (net.conv.weight, net.head.weight):
            parameter.copy_(quantized_per_tensor(parameter, bitwidth))
    x = torch.randn(4, 3, 6, 6)
    return QuantizationSimModel(net, x, default_param_bw=bitwidth), x


def is_lossless(sim: QuantizationSimModel, name: str) -> bool:
    module: Any = getattr(sim.model, name)
    with torch.no_grad():
        y = module.param_quantizers["weight"](module.weight)
    return torch.allclose(y, module.weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bitwidth", [4, 8])
def test_weights_on_a_grid_are_quantized_without_loss(bitwidth: int) -> None:
    plain, x = make(bitwidth)
    plain.compute_encodings(lambda model: model(x))
    assert not is_lossless(plain, "conv")
    sim, x = make(bitwidth)
    adopted = adopt_weight_grids(sim)
    assert adopted["conv.weight"] == 1
    assert is_lossless(sim, "conv")
    sim.compute_encodings(lambda model: model(x))
    assert sim.is_calibrated()
    assert is_lossless(sim, "conv")


def test_other_weights_are_left_alone() -> None:
    torch.manual_seed(8)
    sim = QuantizationSimModel(Net().eval(), torch.randn(1, 3, 6, 6))
    assert adopt_weight_grids(sim) == {}
    model: Any = sim.model
    assert not model.conv.param_quantizers["weight"].is_initialized()


def test_only_the_channels_on_a_grid_take_it() -> None:
    sim, _ = make(8)
    model: Any = sim.model
    torch.manual_seed(9)
    with torch.no_grad():
        model.conv.weight[:4] = torch.randn(4, 3, 3, 3)
    assert adopt_weight_grids(sim)["conv.weight"] == 0.5
    quantizer = model.conv.param_quantizers["weight"]
    largest = model.conv.weight.detach().abs().flatten(1).amax(1)
    scale = quantizer.get_scale().flatten()
    assert torch.all(scale[:4] > largest[:4] / 128.1)
    assert is_lossless(sim, "conv") is False


def test_blocks_and_wide_grids() -> None:
    sim, _ = make(8)
    set_blockwise_quantization_for_weights(sim, [torch.nn.Linear], 8, True, 8)
    assert "head.weight" in adopt_weight_grids(sim)
    assert is_lossless(sim, "head")
    wide, _ = make(8)
    for quantizer in wide.quantizers_by_index:
        quantizer.bitwidth = 16  # type: ignore[misc]
    assert adopt_weight_grids(wide) == {}
