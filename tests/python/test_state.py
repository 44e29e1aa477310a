# SPDX-License-Identifier: BSD-3-Clause
"""A simulation saved and built anew, and files that are whole or not there."""

import os
import resource
import struct
import subprocess
import sys

import pytest
import torch
from torch import nn

from aimetpp.export import files, safetensors
from aimetpp.export.files import write_together
from aimetpp.quantsim import QuantizationSimModel

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        y = torch.relu(self.bn(self.conv(x)))
        return self.fc(torch.nn.functional.max_pool2d(y, 2).flatten(1) / 4)
"""

REBUILD = (
    MODEL
    + """
import sys
from aimetpp.export import safetensors
from aimetpp.quantsim import QuantizationSimModel

folder = sys.argv[1]
saved = safetensors.load(folder + "/example.safetensors")
model = Net().eval()
model.load_state_dict(safetensors.load(folder + "/net.safetensors"))
sim = QuantizationSimModel(model, saved["x"])
sim.load_precision_profile(folder + "/profile.json")
sim.load_encodings(folder + "/net.json")
assert sim.is_calibrated(), sim.uncalibrated()
assert torch.equal(sim.model(saved["x"]), saved["y"])
print("equal")
"""
)


def make_net():
    namespace = {}
    exec(MODEL, namespace)
    return namespace["Net"]()


def test_a_simulation_is_rebuilt_in_a_new_process(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 6, 6)
    sim = QuantizationSimModel(make_net().eval(), x)
    sim.compute_encodings(lambda m: m(x))
    precisions = sim.precisions()
    precisions[0], precisions[1], precisions[-1] = "fp16", "int4", "int12"
    sim.apply_precisions(precisions)
    sim.exclude_param_from_quantization("fc.weight")
    sim.save_precision_profile(tmp_path / "profile.json")
    sim.save_encodings_to_json(tmp_path, "net")
    sim.export_weights_to_safetensors(tmp_path, "net")
    example = {"x": x, "y": sim.model(x).detach()}
    (tmp_path / "example.safetensors").write_bytes(safetensors.to_bytes(example))
    result = subprocess.run(
        [sys.executable, "-c", REBUILD, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=os.getcwd(),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.stdout.strip() == "equal", result.stderr


# -- safetensors --------------------------------------------------------------

TENSORS = {
    "weight": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "brain": torch.tensor([[3.0]], dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "none": torch.empty(0, 3),
}


def test_tensors_come_back(tmp_path):
    path = tmp_path / "t.safetensors"
    path.write_bytes(safetensors.to_bytes(TENSORS))
    loaded = safetensors.load(path)
    assert list(loaded) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


# By hand: 8 bytes of length, the header, one float32.
def test_layout_of_the_format():
    content = safetensors.to_bytes({"a": torch.tensor([1.0])})
    (length,) = struct.unpack("<Q", content[:8])
    assert length % 8 == 0
    header = content[8 : 8 + length].decode().rstrip()
    assert header == '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    assert content[8 + length :] == struct.pack("<f", 1.0)


@pytest.mark.parametrize("cut", [0, 4, 30, -1])
def test_damaged_files_are_errors(tmp_path, cut):
    path = tmp_path / "t.safetensors"
    path.write_bytes(safetensors.to_bytes(TENSORS)[:cut])
    with pytest.raises(ValueError, match=r"t\.safetensors is no whole safetensors"):
        safetensors.load(path)
    with pytest.raises(ValueError, match="complex64"):
        safetensors.to_bytes({"z": torch.zeros(1, dtype=torch.complex64)})


# -- several files as one -----------------------------------------------------


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_failed_rename_gives_everything_back(tmp_path, monkeypatch, failing):
    (tmp_path / "a").write_text("old a")
    (tmp_path / "c").write_text("old c")
    new = {tmp_path / name: f"new {name}" for name in "abc"}
    real, renames = os.replace, []

    def replace(source, target):
        if str(source).endswith(".staged"):
            renames.append(target)
            if len(renames) == failing + 1:
                raise OSError(5, "Input/output error", str(target))
        real(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(OSError, match="Input/output"):
        write_together(new)
    contents = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert contents == {"a": "old a", "c": "old c"}


def test_files_take_their_places_together(tmp_path):
    (tmp_path / "a").write_text("old a")
    write_together({tmp_path / "a": "new a", tmp_path / "b": b"new b"})
    contents = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert contents == {"a": "new a", "b": "new b"}


def test_links_are_followed_and_devices_written_to(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "nowhere").symlink_to(os.devnull)
    write_together({tmp_path / "link": "new", tmp_path / "nowhere": "lost"})
    assert (tmp_path / "real").read_text() == "new"
    assert {p.name for p in tmp_path.iterdir() if p.is_symlink()} == {"link", "nowhere"}
    assert len(list(tmp_path.iterdir())) == 3


WRITERS = {
    "net.onnx": lambda sim, f: sim.export(f, "net"),
    "net.encodings": lambda sim, f: sim.onnx.export(sim.dummy_input, f / "net.onnx"),
    "net.pt": lambda sim, f: sim.export_torchscript(f / "net.pt"),
    "portable.pt": lambda sim, f: sim.export_torchscript(f / "portable.pt", True),
    "net.json": lambda sim, f: sim.save_encodings_to_json(f, "net"),
    "net.safetensors": lambda sim, f: sim.export_weights_to_safetensors(f, "net"),
    "profile.json": lambda sim, f: sim.save_precision_profile(f / "profile.json"),
}


# A limit on the size of files stands in for a full disk: write() fails in the middle.
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path, name):
    x = torch.randn(4, 3, 6, 6)
    sim = QuantizationSimModel(make_net().eval(), x)
    sim.compute_encodings(lambda m: m(x))
    for old in (*WRITERS, "net_torch.encodings"):
        (tmp_path / old).write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            WRITERS[name](sim, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    contents = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert contents == dict.fromkeys((*WRITERS, "net_torch.encodings"), "old")


# -- excluding ----------------------------------------------------------------


def test_excluded_layers_are_named_in_encodings_files(tmp_path):
    x = torch.randn(4, 3, 6, 6)
    sim = QuantizationSimModel(make_net().eval(), x)
    sim.exclude_layers_from_quantization([sim.model.fc, sim.model.fc])
    sim.compute_encodings(lambda m: m(x))
    assert sim.excluded_layers == ["fc"]
    sim.save_encodings_to_json(tmp_path, "net")
    assert '"excluded_layers": [\n    "fc"\n  ]' in (tmp_path / "net.json").read_text()


def test_params_are_excluded_by_name_or_path():
    x = torch.randn(2, 4)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    sim = QuantizationSimModel(model, x)
    sim.exclude_param_from_quantization("1.weight")
    states = [layer.param_quantizers["weight"] is not None for layer in sim.model]
    assert states == [True, False]
    sim.exclude_param_from_quantization("weight")
    assert sim.model[0].param_quantizers["weight"] is None
    with pytest.raises(ValueError, match="'wieght'"):
        sim.exclude_param_from_quantization("wieght")
