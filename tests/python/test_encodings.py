# SPDX-License-Identifier: BSD-3-Clause
"""Encodings files: the three formats, and loading what was saved."""

import json

import pytest
import torch
import torch.nn.functional as F
from export_models import TwoReaders
from torch import nn

import aimetpp
from aimetpp.export.encodings import (
    Encoding,
    FileHeader,
    document,
    leaf_0_6_1,
    leaf_1_0_0,
    leaf_2_0_0,
    module_document,
    save_encodings_to_json,
    site_encodings,
)
from aimetpp.export.loading import load_encodings
from aimetpp.export.onnx import export_onnx
from aimetpp.quantsim import QuantizationSimModel, load_encodings_to_sim

ACTIVATION = Encoding("int8", False, (0.5,), (-3,), 0, 255)
WEIGHT = Encoding("int4", True, (0.25, 0.5), (0, 0), -8, 7, channel_axis=0)


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.flat = nn.Flatten()
        self.fc = nn.Linear(64, 5)
        self.sm = nn.Softmax(dim=1)

    def forward(self, x):
        y = self.relu(self.conv(x))
        y = self.flat(self.pool(self.conv2(y)))
        return self.sm(self.fc(y))


class Functional(nn.Module):
    """A layer called twice, a functional add, a functional linear."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.scale = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        y = self.fc(x)
        y = self.fc(y) + x
        return F.linear(y, self.scale)


def calibrated(model, x, **options):
    sim = QuantizationSimModel(model.eval(), x, **options)
    sim.compute_encodings(lambda m: m(x))
    return sim


@pytest.fixture
def images():
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def sim(images):
    torch.manual_seed(0)
    return calibrated(Tiny(), images)


# -- the formats ------------------------------------------------------------


def test_leaf_0_6_1_by_hand():
    assert leaf_0_6_1(ACTIVATION) == [
        {
            "min": -1.5,
            "max": 126.0,
            "scale": 0.5,
            "offset": -3,
            "bitwidth": 8,
            "dtype": "int",
            "is_symmetric": "False",
        }
    ]
    first, second = leaf_0_6_1(WEIGHT)
    assert (first["min"], first["max"], first["offset"]) == (-2.0, 1.75, -8)
    assert (second["min"], second["max"], second["offset"]) == (-4.0, 3.5, -8)
    assert first["is_symmetric"] == "True"


def test_leaf_1_0_0_by_hand():
    assert leaf_1_0_0("x", ACTIVATION) == {
        "name": "x",
        "dtype": "INT",
        "bw": 8,
        "is_sym": False,
        "scale": [0.5],
        "offset": [-3],
        "enc_type": "PER_TENSOR",
    }
    leaf = leaf_1_0_0("w", WEIGHT)
    assert leaf["enc_type"] == "PER_CHANNEL"
    assert leaf["scale"] == [0.25, 0.5]
    assert leaf["offset"] == [-8, -8]


def test_leaf_2_0_0_by_hand():
    assert leaf_2_0_0("x", ACTIVATION) == {
        "name": "x",
        "output_dtype": "uint8",
        "y_scale": 0.5,
        "y_zero_point": 3,
    }
    assert leaf_2_0_0("w", WEIGHT) == {
        "name": "w",
        "output_dtype": "int4",
        "y_scale": [0.25, 0.5],
        "axis": 0,
    }


def test_float_leaves():
    half, brain = Encoding("fp16"), Encoding("bf16")
    assert leaf_0_6_1(half) == [{"bitwidth": 16, "dtype": "float"}]
    assert leaf_1_0_0("x", half) == {
        "name": "x",
        "dtype": "FLOAT",
        "bw": 16,
        "enc_type": "PER_TENSOR",
    }
    assert leaf_2_0_0("x", half) == {"name": "x", "output_dtype": "float16"}
    assert leaf_2_0_0("x", brain) == {"name": "x", "output_dtype": "bfloat16"}
    assert leaf_0_6_1(brain)[0]["mantissa_bits"] == 7


def test_document_has_the_sections_of_each_version():
    header = FileHeader({"quant_scheme": "min_max"}, ("fc",))
    old, new, newest = (
        document({"x": ACTIVATION}, {"w": WEIGHT}, header, version)
        for version in ("0.6.1", "1.0.0", "2.0.0")
    )
    for content, version in ((old, "0.6.1"), (new, "1.0.0"), (newest, "2.0.0")):
        assert content["producer"] == {
            "package": "aimetpp",
            "version": aimetpp.__version__,
        }
        assert content["version"] == version
    assert (
        set(old)
        == set(new)
        == {
            "producer",
            "version",
            "activation_encodings",
            "param_encodings",
            "excluded_layers",
            "quantizer_args",
        }
    )
    assert list(old["activation_encodings"]) == ["x"]
    assert [entry["name"] for entry in new["param_encodings"]] == ["w"]
    assert new["excluded_layers"] == ["fc"]
    assert set(newest) == {"producer", "version", "encodings"}
    assert [entry["name"] for entry in newest["encodings"]] == ["w", "x"]


# -- of a simulation --------------------------------------------------------


def test_file_beside_the_onnx_names_every_tensor(sim, images, tmp_path):
    export_onnx(sim, images, tmp_path / "tiny.onnx", output_names=["y"])
    content = json.loads((tmp_path / "tiny.encodings").read_text())
    names = [entry["name"] for entry in content["activation_encodings"]]
    assert names == [
        "x",
        "/relu/Relu_output_0",
        "/conv2/Conv_output_0",
        "/fc/Gemm_output_0",
        "y",
        "/pool/MaxPool_output_0",
        "/flat/Flatten_output_0",
    ]
    entries = dict(zip(names, content["activation_encodings"], strict=True))
    moved = entries["/flat/Flatten_output_0"]
    source = entries["/conv2/Conv_output_0"]
    assert {**moved, "name": ""} == {**source, "name": ""}
    params = {entry["name"]: entry for entry in content["param_encodings"]}
    assert list(params) == ["conv.weight", "conv2.weight", "fc.weight"]
    assert params["conv.weight"]["enc_type"] == "PER_CHANNEL"
    assert len(params["conv.weight"]["scale"]) == 4
    assert params["conv.weight"]["offset"] == [-128] * 4
    assert content["quantizer_args"] == {
        "quant_scheme": "min_max",
        "param_bitwidth": 8,
        "activation_bitwidth": 8,
        "dtype": "int",
        "is_symmetric": True,
        "per_channel_quantization": True,
    }


@pytest.mark.parametrize("version", ["0.6.1", "1.0.0", "2.0.0"])
def test_every_version_is_written(sim, images, tmp_path, version):
    export_onnx(sim, images, tmp_path / "t.onnx", encoding_version=version)
    assert json.loads((tmp_path / "t.encodings").read_text())["version"] == version


def test_unknown_version_is_refused(sim, images, tmp_path):
    with pytest.raises(ValueError, match="encoding_version must be one of 0.6.1"):
        export_onnx(sim, images, tmp_path / "t.onnx", encoding_version="3.0.0")
    assert list(tmp_path.iterdir()) == []


def test_scale_and_offset_are_those_of_the_quantizer(sim):
    found = site_encodings(sim)
    for site in sim.sites():
        if site.quantizer is None:
            assert site.id not in found
            continue
        encoding = found[site.id]
        scale = site.quantizer.get_scale().detach().flatten()
        assert torch.equal(torch.tensor(encoding.scale), scale)
        low = torch.tensor(encoding.file_offset) * scale
        assert torch.equal(low, site.quantizer.get_min().detach().flatten())


def test_uncalibrated_names_the_site(images):
    sim = QuantizationSimModel(Tiny().eval(), images)
    with pytest.raises(RuntimeError, match=r"conv.*compute_encodings"):
        module_document(sim)


def test_module_document_names_calls_and_functional_ops():
    torch.manual_seed(0)
    x = torch.randn(5, 6)
    content = module_document(calibrated(Functional(), x))
    activations = content["activation_encodings"]
    assert set(activations["fc:1"]["output"]) == {"0"}
    assert set(activations["/add_0"]["output"]) == {"0"}
    assert set(content["param_encodings"]) == {"fc.weight", "scale"}


# -- round trip -------------------------------------------------------------


def state(sim):
    return {
        site.name: None if site.quantizer is None else site.quantizer.get_encodings()
        for site in sim.sites()
    }


@pytest.mark.parametrize("model", [Tiny, Functional])
@pytest.mark.parametrize("scheme", ["min_max", "tf_enhanced"])
def test_round_trip_is_exact(model, scheme, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(5, 3, 8, 8) if model is Tiny else torch.randn(5, 6)
    net = model()
    saved = calibrated(net, x, quant_scheme=scheme)
    saved.save_encodings_to_json(tmp_path, "sim")
    loaded = QuantizationSimModel(net, x)
    loaded.load_encodings(tmp_path / "sim.json")
    assert state(loaded) == state(saved)
    assert torch.equal(loaded.model(x), saved.model(x))


def test_round_trip_of_mixed_precisions(sim, images, tmp_path):
    precisions = sim.precisions()
    for index, precision in enumerate(("fp16", "bf16", "int4", "fp32", "int16")):
        precisions[index] = precision
    sim.apply_precisions(precisions)
    save_encodings_to_json(sim, tmp_path, "mixed")
    torch.manual_seed(0)
    other = QuantizationSimModel(Tiny().eval(), images)
    load_encodings(other, tmp_path / "mixed.json", partial=False)
    assert other.precisions() == precisions
    assert state(other) == state(sim)


def test_loading_many_scales_is_exact():
    torch.manual_seed(0)
    net = nn.Linear(2, 500, bias=False)
    nn.init.normal_(net.weight, std=3.0)
    x = torch.randn(9, 2)
    saved = calibrated(net, x)
    loaded = QuantizationSimModel(net, x)
    load_encodings(loaded, module_document(saved))
    ours = loaded.model.param_quantizers["weight"].get_scale()
    assert torch.equal(ours, saved.model.param_quantizers["weight"].get_scale())


def test_partial_keeps_or_turns_off_the_rest(sim, images):
    content = module_document(sim)
    del content["param_encodings"]["fc.weight"]
    fc = sim.model.fc.param_quantizers
    load_encodings(sim, content)
    assert fc["weight"] is not None
    load_encodings_to_sim(sim, content)
    assert fc["weight"] is None
    assert sim.model.conv.param_quantizers["weight"] is not None


def test_strict_lists_every_name_and_changes_nothing(sim):
    content = module_document(sim)
    content["param_encodings"]["nowhere.weight"] = content["param_encodings"][
        "fc.weight"
    ]
    content["param_encodings"]["fc.bias"] = content["param_encodings"]["fc.weight"]
    content["activation_encodings"]["conv"]["input"]["0"]["scale"] *= 2
    before = state(sim)
    with pytest.raises(RuntimeError) as error:
        load_encodings(sim, content)
    assert "not in the model: nowhere.weight" in str(error.value)
    assert "no quantizer there: fc.bias" in str(error.value)
    assert state(sim) == before
    load_encodings(sim, content, strict=False)
    assert state(sim) != before


def test_wrong_number_of_channels_is_refused(sim):
    content = module_document(sim)
    content["param_encodings"]["fc.weight"].pop()
    before = state(sim)
    with pytest.raises(RuntimeError, match="fc.weight has 5 channels, the file has 4"):
        load_encodings(sim, content)
    assert state(sim) == before


def test_shared_quantizer_with_two_encodings_is_refused():
    torch.manual_seed(0)
    sim = calibrated(TwoReaders(), torch.randn(3, 4))
    content = module_document(sim)
    content["activation_encodings"]["b"]["input"]["0"]["scale"] *= 2
    with pytest.raises(ValueError, match="a.input.0 and b.input.0 share one quantizer"):
        load_encodings(sim, content)


def test_not_an_encodings_file(sim, tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="x.json is not JSON"):
        load_encodings(sim, path)
    with pytest.raises(ValueError, match="sections of an unknown kind"):
        load_encodings(sim, {"activation_encodings": 3})
    with pytest.raises(ValueError, match="'conv' must have 'input' or 'output'"):
        load_encodings(sim, {"activation_encodings": {"conv": 3}})
    for empty in ({}, {"activation_encodings": [], "param_encodings": []}):
        with pytest.raises(ValueError, match="holds no encodings"):
            load_encodings(sim, empty)
    bad = {"param_encodings": {"fc.weight": [{"bitwidth": 8}]}}
    with pytest.raises(ValueError, match="entry of 'fc.weight' must have"):
        load_encodings(sim, bad)


def test_loaded_ranges_can_be_frozen(sim, images):
    content = module_document(sim)
    content["activation_encodings"]["conv"]["input"]["0"]["scale"] *= 2
    load_encodings(sim, content, allow_overwrite=False, requires_grad=False)
    quantizer = sim.model.conv.input_quantizers[0]
    loaded = quantizer.get_scale()
    sim.compute_encodings(lambda m: m(images))
    assert torch.equal(quantizer.get_scale(), loaded)
    assert not quantizer.min.requires_grad


@pytest.mark.parametrize("only_params", [True, False])
def test_param_encodings_are_set_and_frozen(sim, images, tmp_path, only_params):
    sim.save_encodings_to_json(tmp_path, "all")
    path = tmp_path / "all.json"
    content = json.loads(path.read_text())
    content["param_encodings"]["fc.weight"][0]["scale"] *= 2
    path.write_text(json.dumps(content["param_encodings"] if only_params else content))
    before = sim.model.fc.output_quantizers[0].get_encodings()
    sim.set_and_freeze_param_encodings(path)
    quantizer = sim.model.fc.param_quantizers["weight"]
    wanted = [leaf["scale"] for leaf in content["param_encodings"]["fc.weight"]]
    assert quantizer.get_scale().flatten().tolist() == wanted
    assert not quantizer.min.requires_grad and not quantizer.max.requires_grad
    sim.compute_encodings(lambda m: m(images))
    assert quantizer.get_scale().flatten().tolist() == wanted
    assert sim.model.fc.output_quantizers[0].get_encodings() == before
    path.write_text(json.dumps({**content, "param_encodings": {}}))
    with pytest.raises(ValueError, match="all.json holds no parameter encodings"):
        sim.set_and_freeze_param_encodings(path)
