# SPDX-License-Identifier: BSD-3-Clause
"""Exported encodings files against the three formats, key by key and type by type.

The formats are those of AIMET 2.42's own files.
"""

import json

import pytest
import torch
from torch import nn

from aimetpp.quantsim import QuantizationSimModel

HEADER = {"producer", "version"}
SECTIONS = {
    "activation_encodings",
    "param_encodings",
    "excluded_layers",
    "quantizer_args",
}
QUANTIZER_ARGS = {
    "quant_scheme": str,
    "param_bitwidth": int,
    "activation_bitwidth": int,
    "dtype": str,
    "is_symmetric": bool,
    "per_channel_quantization": bool,
}
LEAF_0_6_1 = {
    "min": float,
    "max": float,
    "scale": float,
    "offset": int,
    "bitwidth": int,
    "dtype": str,
    "is_symmetric": str,
}
LEAF_1_0_0 = {
    "name": str,
    "dtype": str,
    "bw": int,
    "is_sym": bool,
    "scale": list,
    "offset": list,
    "enc_type": str,
}


def check_object(value, fields, where):
    assert set(value) == set(fields), where
    for key, kind in fields.items():
        assert type(value[key]) is kind, f"{where}.{key}: {value[key]!r}"


def check_common(document):
    assert set(document) == HEADER | SECTIONS
    check_object(document["quantizer_args"], QUANTIZER_ARGS, "quantizer_args")
    assert all(isinstance(name, str) for name in document["excluded_layers"])


def check_0_6_1(document):
    check_common(document)
    for section in ("activation_encodings", "param_encodings"):
        for name, channels in document[section].items():
            assert channels, name
            for leaf in channels:
                if leaf["dtype"] == "float":
                    check_object(leaf, {"bitwidth": int, "dtype": str}, name)
                    continue
                check_object(leaf, LEAF_0_6_1, name)
                assert leaf["is_symmetric"] in ("True", "False")
                assert leaf["offset"] <= 0


def check_1_0_0(document):
    check_common(document)
    for section in ("activation_encodings", "param_encodings"):
        for leaf in document[section]:
            if leaf["dtype"] == "FLOAT":
                fields = {"name": str, "dtype": str, "bw": int, "enc_type": str}
                check_object(leaf, fields, leaf["name"])
                continue
            check_object(leaf, LEAF_1_0_0, leaf["name"])
            assert len(leaf["scale"]) == len(leaf["offset"])
            per_channel = leaf["enc_type"] == "PER_CHANNEL"
            assert per_channel or leaf["enc_type"] == "PER_TENSOR"
            assert per_channel or len(leaf["scale"]) == 1
            assert all(offset <= 0 for offset in leaf["offset"])


def check_2_0_0(document):
    assert set(document) == HEADER | {"encodings"}
    names = [leaf["name"] for leaf in document["encodings"]]
    assert len(names) == len(set(names))
    for leaf in document["encodings"]:
        required = {"name", "output_dtype"}
        if leaf["output_dtype"].startswith("float"):
            assert set(leaf) == required
            continue
        required |= {"y_scale"}
        assert required <= set(leaf) <= required | {"y_zero_point", "axis"}
        assert isinstance(leaf["y_scale"], list) is ("axis" in leaf)
        if "y_zero_point" in leaf:  # left out where it is zero
            assert leaf["y_zero_point"]


CHECKS = {"0.6.1": check_0_6_1, "1.0.0": check_1_0_0, "2.0.0": check_2_0_0}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        y = torch.relu(self.conv1(x))
        y = torch.cat([y, self.conv2(y)], dim=1).amax(3)
        return self.fc(y[:, :, :2].flatten(1))


@pytest.mark.parametrize("version", CHECKS)
@pytest.mark.parametrize("config", ["default", "default_per_tensor"])
def test_files_have_the_form_of_the_format(tmp_path, version, config):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6)
    sim = QuantizationSimModel(Net().eval(), x, config_file=config)
    sim.compute_encodings(lambda m: m(x))
    precisions = sim.precisions()
    precisions[-1] = "fp16"
    sim.apply_precisions(precisions)
    sim.onnx.export(x, tmp_path / "net.onnx", encoding_version=version)
    document = json.loads((tmp_path / "net.encodings").read_text())
    assert document["version"] == version
    CHECKS[version](document)
    sim.save_encodings_to_json(tmp_path, "by_module")
    by_module = json.loads((tmp_path / "by_module.json").read_text())
    check_common(by_module)
    for call in by_module["activation_encodings"].values():
        assert set(call) <= {"input", "output"}
        for leaf in (leaf for slots in call.values() for leaf in slots.values()):
            assert leaf["dtype"] == "float" or set(leaf) == set(LEAF_0_6_1)
