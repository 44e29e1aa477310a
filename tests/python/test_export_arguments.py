# SPDX-License-Identifier: BSD-3-Clause
"""Names and options that exports are given."""

import json

import onnx
import pytest
import torch
from torch import nn

from aimetpp.quantsim import QuantizationSimModel

EXAMPLE = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def sim():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    sim = QuantizationSimModel(net, EXAMPLE, int32_bias=True)
    sim.compute_encodings(lambda model: model(EXAMPLE))
    return sim


def names_in(folder):
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


def test_arguments_stand_where_aimet_has_them(sim, tmp_path):
    names = {"input_names": ["pixels"], "output_names": ["scores"]}
    sim.export(
        tmp_path, "net", EXAMPLE, names, False, True, False, True, "ranges", True
    )
    assert names_in(tmp_path) == [
        "net.onnx",
        "net.torchscript.pth",
        "ranges.encodings",
        "ranges_torch.encodings",
    ]
    graph = onnx.load(tmp_path / "net.onnx").graph
    assert [value.name for value in graph.input] == ["pixels"]
    content = json.loads((tmp_path / "ranges.encodings").read_text())
    activations = [leaf["name"] for leaf in content["activation_encodings"]]
    assert activations[0] == "pixels" and activations[-1] == "scores"


def test_encodings_alone(sim, tmp_path):
    sim.export(tmp_path, "net", export_model=False)
    assert names_in(tmp_path) == ["net.encodings", "net_torch.encodings"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("propagate_encodings", True),
        ("use_embedded_encodings", True),
        ("apply_param_qdq", False),
    ],
)
def test_options_without_an_effect_are_errors(sim, tmp_path, option, value):
    with pytest.raises(ValueError, match=f"{option} can only be {not value}, got"):
        sim.export(tmp_path, "net", **{option: value})
    assert names_in(tmp_path) == []


def test_a_prefix_may_hold_folders(sim, tmp_path):
    sim.export(tmp_path, "runs/ü 1/net", filename_prefix_encodings="ranges/net")
    assert names_in(tmp_path) == [
        "ranges/net.encodings",
        "ranges/net_torch.encodings",
        "runs/ü 1/net.onnx",
    ]


def test_the_model_has_a_name_of_its_own(sim, tmp_path):
    with pytest.raises(ValueError, match="filename_prefix must not be empty"):
        sim.export(tmp_path, "")
    with pytest.raises(ValueError, match="net.encodings is the name of the encodings"):
        sim.onnx.export(EXAMPLE, tmp_path / "net.encodings")
    with pytest.raises(IsADirectoryError):
        sim.onnx.export(EXAMPLE, tmp_path)
    with pytest.raises(FileNotFoundError):
        sim.onnx.export(EXAMPLE, "")
    assert names_in(tmp_path) == []


def test_dynamic_axes_are_those_of_inputs_and_outputs(sim, tmp_path):
    axes = {"input": {0: "batch"}, "pixels": {0: "batch"}}
    with pytest.raises(ValueError, match="pixels must be among .* are input, output"):
        sim.onnx.export(EXAMPLE, tmp_path / "net.onnx", dynamic_axes=axes)
    assert names_in(tmp_path) == []
