# SPDX-License-Identifier: BSD-3-Clause
"""Tensors that a forward makes of constants, and that are quantized."""

import json

import pytest
import torch
from onnx_running import run
from torch import nn

from aimetpp.quantsim import QuantizationSimModel
from aimetpp.quantsim.constant_sites import find

EXAMPLE = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


class Constants(nn.Module):
    """Weights from torch.linspace, computed further, beside a buffer."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 6)
        self.register_buffer("shift", torch.tensor([0.1, 0.25, -0.7]))

    def forward(self, x):
        ramp = torch.linspace(-0.3, 1.37, 18).reshape(6, 3) * 2 + 1
        return self.fc(x) @ ramp + self.shift


@pytest.fixture(scope="module")
def sim():
    torch.manual_seed(0)
    sim = QuantizationSimModel(Constants().eval(), EXAMPLE, int32_bias=True)
    sim.compute_encodings(lambda model: model(EXAMPLE))
    return sim


def test_their_sites_are_known(sim):
    names = {sim.graph.site_name(site) for site in find(sim.graph)}
    assert {"/mul_0", "/add_0", "/matmul_0.input.1", "/add_1.input.1"} <= names
    assert not {"fc", "fc.input.0", "fc.weight", "/matmul_0", "/add_1"} & names


def test_they_are_quantized_in_the_file_as_in_the_simulation(sim, tmp_path):
    expected = sim.model(EXAMPLE)
    with sim.quantizers_off():
        floating = sim.model(EXAMPLE)
    sim.onnx.export(EXAMPLE, tmp_path / "net.onnx", encoding_version="2.0.0")
    (got,) = run(str(tmp_path / "net.onnx"), {"x": EXAMPLE.numpy()})
    assert got.dtype == "float32"
    assert torch.equal(torch.from_numpy(got), expected)
    assert not torch.equal(floating, expected)
    encodings = json.loads((tmp_path / "net.encodings").read_text())["encodings"]
    scales = {leaf["y_scale"] for leaf in encodings if "axis" not in leaf}
    on = [site.quantizer for site in sim.sites() if site.quantizer is not None]
    single = [q.get_scale().item() for q in on if q.get_scale().numel() == 1]
    assert len(single) >= 6 and scales >= set(single)


def test_their_encodings_come_back(sim, tmp_path):
    sim.onnx.export(EXAMPLE, tmp_path / "net.onnx")
    torch.manual_seed(0)
    rebuilt = QuantizationSimModel(Constants().eval(), EXAMPLE, int32_bias=True)
    rebuilt.load_encodings(tmp_path / "net.encodings")
    assert rebuilt.is_calibrated()
    assert torch.equal(rebuilt.model(EXAMPLE), sim.model(EXAMPLE))


class Positions(nn.Module):
    """Adds numbers that depend on the length of the input."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x) + torch.arange(x.shape[1]).float().sin()[:, None]


def test_what_depends_on_a_shape_stays_dynamic(tmp_path):
    torch.manual_seed(0)
    short, long = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    sim = QuantizationSimModel(Positions().eval(), short, int32_bias=True)
    sim.compute_encodings(lambda model: model(short))
    axes = {"x": {1: "length"}}
    sim.onnx.export(short, tmp_path / "net.onnx", dynamic_axes=axes)
    for example in (short, long[:, :3]):
        (got,) = run(str(tmp_path / "net.onnx"), {"x": example.numpy()})
        assert torch.equal(torch.from_numpy(got), sim.model(example))
