# SPDX-License-Identifier: BSD-3-Clause
"""Encodings files keyed by the tensors of an ONNX file, back into a simulation."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aimetpp.quantsim import QuantizationSimModel

VERSIONS = ["0.6.1", "1.0.0", "2.0.0"]


class Net(nn.Module):
    """Pooling, views, a concatenation, a layer called twice, a functional add."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.mix = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        y = torch.cat([self.left(x), F.relu(self.right(x))], 1)
        y = F.max_pool2d(y, 2).flatten(2).transpose(1, 2)
        y = self.mix(y)
        return self.fc(self.mix(y) + y)


@pytest.fixture
def images():
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def make(images, **options):
    torch.manual_seed(0)
    return QuantizationSimModel(Net().eval(), images, **options)


def calibrated(images, **options):
    sim = make(images, **options)
    sim.compute_encodings(lambda m: m(images))
    return sim


def encodings(sim):
    return {
        site.name: None if site.quantizer is None else site.quantizer.get_encodings()
        for site in sim.sites()
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_what_was_exported_comes_back(images, tmp_path, version, bias):
    saved = calibrated(images)
    precisions = saved.precisions()
    precisions[1], precisions[-1] = "fp16", "int4"
    saved.apply_precisions(precisions)
    saved.export(
        tmp_path, "net", encoding_version=version, export_int32_bias=bias or None
    )
    text = (tmp_path / "net.encodings").read_text()
    assert ("mix.bias" in text) is (bias or version == "2.0.0")
    assert "MaxPool" in text  # follows from another tensor's
    loaded = make(images)
    loaded.load_encodings(tmp_path / "net.encodings")
    assert torch.equal(loaded.model(images), saved.model(images))
    for name, wanted in encodings(saved).items():
        got = encodings(loaded)[name]
        if version == "2.0.0":  # does not say what is symmetric and what is not
            got, wanted = ({**e, "is_symmetric": 0} if e else e for e in (got, wanted))
        assert got == wanted, name


# A strict grid starts at -127, which a file of version 2.0.0 does not tell.
@pytest.mark.parametrize("version", VERSIONS)
def test_strict_grids_come_back(images, tmp_path, version):
    config = tmp_path / "strict.json"
    rules = {
        "defaults": {
            "ops": {"is_output_quantized": "True"},
            "params": {"is_quantized": "True", "is_symmetric": "True"},
            "strict_symmetric": "True",
        },
        "params": {"bias": {"is_quantized": "False"}},
        "op_type": {},
        "supergroups": [],
        "model_input": {"is_input_quantized": "True"},
        "model_output": {},
    }
    config.write_text(json.dumps(rules))
    saved = calibrated(images, config_file=str(config))
    assert saved.model.fc.param_quantizers["weight"].grid.tolist() == [-127, 127]
    saved.export(tmp_path, "net", encoding_version=version)
    loaded = make(images, config_file=str(config))
    loaded.load_encodings(tmp_path / "net.encodings")
    assert torch.equal(loaded.model(images), saved.model(images))


@pytest.mark.parametrize("version", VERSIONS)
def test_names_that_do_not_match_are_listed(images, tmp_path, version):
    sim = calibrated(images)
    sim.onnx.export(images, tmp_path / "net.onnx", encoding_version=version)
    content = json.loads((tmp_path / "net.encodings").read_text())
    for section in ("encodings", "activation_encodings"):
        entries = content.get(section, {})
        if isinstance(entries, list):
            entries.append({**entries[-1], "name": "/nowhere"})
            entries.append({**entries[-1], "name": "/Cast_output_0"})
        elif entries:
            entries["/nowhere"] = entries["/Cast_output_0"] = entries["x"]
    before = encodings(sim)
    with pytest.raises(RuntimeError, match="not in the model: /nowhere, /Cast_out"):
        sim.load_encodings(content)
    assert encodings(sim) == before
    sim.load_encodings(content, strict=False)


def test_quantizers_without_an_entry_are_kept_or_turned_off(images, tmp_path):
    sim = calibrated(images)
    sim.onnx.export(images, tmp_path / "net.onnx")
    content = json.loads((tmp_path / "net.encodings").read_text())
    del content["param_encodings"][-1]
    full, weight = content["param_encodings"], sim.model.fc.param_quantizers
    assert "fc.weight" not in [entry["name"] for entry in full]
    sim.load_encodings(content)
    assert weight["weight"] is not None
    sim.load_encodings(content, partial=False)
    assert weight["weight"] is None
    # An entry turns a quantizer on again.
    sim.load_encodings(tmp_path / "net.encodings")
    assert weight["weight"] is not None


def test_names_that_the_export_was_given(images, tmp_path):
    saved, loaded = calibrated(images), make(images)
    names = {"input_names": ["pixels"], "output_names": ["scores"]}
    saved.onnx.export(images, tmp_path / "net.onnx", **names)
    with pytest.raises(RuntimeError, match="not in the model: pixels, scores"):
        loaded.load_encodings(tmp_path / "net.encodings")
    loaded.load_encodings(tmp_path / "net.encodings", onnx_export_args=names)
    assert torch.equal(loaded.model(images), saved.model(images))


@pytest.mark.parametrize("version", VERSIONS)
def test_params_of_any_version_are_set_and_frozen(images, tmp_path, version):
    saved, loaded = calibrated(images, default_param_bw=4), calibrated(images)
    saved.export(tmp_path, "net", encoding_version=version, export_int32_bias=True)
    activation = loaded.model.fc.output_quantizers[0].get_encodings()
    loaded.set_and_freeze_param_encodings(tmp_path / "net.encodings")
    for module in ("left", "right", "mix", "fc"):
        mine, its = (
            sim.model.get_submodule(module).param_quantizers["weight"]
            for sim in (saved, loaded)
        )
        assert torch.equal(mine.get_scale(), its.get_scale()) and its.bitwidth == 4
        assert not its.min.requires_grad
    assert loaded.model.fc.output_quantizers[0].get_encodings() == activation


def test_wrong_entries_are_named(images):
    sim = make(images)
    for entry, words in (
        ({"name": "x", "bw": 8}, "entry of 'x' must have bw, dtype"),
        ({"bw": 8}, "without a name"),
        ({"name": "x", "compressed_bw": 4}, "'x' has compressed_bw.*LPBQ"),
    ):
        with pytest.raises(ValueError, match=words):
            sim.load_encodings({"activation_encodings": [entry]})
    with pytest.raises(ValueError, match="'x' must have output_dtype and y_scale"):
        sim.load_encodings({"encodings": [{"name": "x", "output_dtype": "int8"}]})
