# SPDX-License-Identifier: BSD-3-Clause
"""The profile of a simulated forward, and its command."""

import copy

import pytest
import torch
from torch import nn

from aimetpp.cli import main
from aimetpp.profiling import CallTime, ForwardProfile, SiteTime, profile_forward
from aimetpp.quantization import FloatQuantizeDequantize, QuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        y = self.relu(self.conv(x))
        y = self.relu(y + 1)
        return self.fc(y.mean((2, 3)))


@pytest.fixture
def sim():
    torch.manual_seed(0)
    simulation = QuantizationSimModel(Model(), torch.randn(2, 3, 8, 8))
    simulation.compute_encodings(lambda m: m(torch.randn(2, 3, 8, 8)))
    return simulation


def test_every_call_and_quantizer_has_a_row(sim):
    profile = profile_forward(sim, repeats=2)
    calls = {call.name: call for call in profile.calls}
    assert set(calls) == {"conv", "relu", "add_0", "mean_0", "fc"} or set(calls) == {
        "conv", "relu", "/add_0", "/mean_0", "fc"
    }  # fmt: skip
    assert calls["conv"].op == "conv2d" and calls["conv"].calls == 1
    assert calls["relu"].calls == 2
    on = {label for label, _ in _standing(sim)}
    assert {site.name for site in profile.sites} == on
    assert profile.simulated > 0 and profile.float_ > 0
    for call in profile.calls:
        assert 0 <= call.quantizing <= call.simulated
        assert call.float_ > 0
    in_sites = sum(site.milliseconds for site in profile.sites)
    assert sum(c.quantizing for c in profile.calls) == pytest.approx(in_sites, rel=0.5)


def _standing(sim):
    for quantizer in {id(q): q for _, q in sim.named_quantizers()}.values():
        yield quantizer.label, quantizer


def own():
    quantizer = QuantizeDequantize((), 4, False)
    quantizer.set_range(-1.0, 1.0)
    return quantizer


class WithPlaces(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.before = nn.Identity()
        self.narrow = nn.Identity()

    def forward(self, x):
        return torch.sigmoid(self.fc(self.narrow(self.before(x))))


def test_quantizers_that_a_user_put_in_are_rows_of_their_own():
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    sim = QuantizationSimModel(WithPlaces(), x)
    sim.compute_encodings(lambda m: m(x))
    model = sim.model
    model.before, model.narrow = own(), FloatQuantizeDequantize(torch.float16)
    model.fc.input_quantizers[0] = own()
    (of_sigmoid,) = sim.functional_quantizers.values()
    model.fc.output_quantizers[0] = copy.deepcopy(of_sigmoid)
    blocks = QuantizeDequantize((2, 2), 8, True, block_size=(1, 2))
    with blocks.compute_encodings():
        blocks(model.fc.weight)
    model.fc.param_quantizers["weight"] = blocks
    labels = [quantizer.label for _, quantizer in sim.named_quantizers()]
    sites = {site.name: site for site in profile_forward(sim, repeats=2).sites}
    assert set(sites) == {
        "before", "narrow", "fc.input.0", "fc.weight", "fc", "/sigmoid_0"
    }  # fmt: skip
    assert all(site.runs == 1 and site.milliseconds > 0 for site in sites.values())
    assert [quantizer.label for _, quantizer in sim.named_quantizers()] == labels


@pytest.mark.parametrize("precision", ["fp16", "fp8_e4m3"])
def test_narrow_floats_have_rows_too(sim, precision):
    sim.apply_precisions([precision] * len(sim.precisions()))
    sites = profile_forward(sim, repeats=1).sites
    assert {site.name for site in sites} == {label for label, _ in _standing(sim)}
    assert min(site.milliseconds for site in sites) > 0


def test_the_report_names_the_slowest(sim):
    profile = profile_forward(sim, torch.randn(1, 3, 8, 8), repeats=1)
    text = profile.report(rows=1)
    assert profile.calls[0].name in text and profile.sites[0].name in text
    assert f"... and {len(profile.calls) - 1} faster calls" in text
    assert str(profile) == profile.report()


def test_profiling_leaves_the_simulation_as_it_was(sim):
    x = torch.randn(2, 3, 8, 8)
    sim.model.train()
    expected = sim.model(x)
    profile_forward(sim, x, repeats=1)
    assert sim.model.training and torch.equal(sim.model(x), expected)


def test_errors(sim):
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        profile_forward(sim, repeats=0)
    uncalibrated = QuantizationSimModel(Model(), torch.randn(2, 3, 8, 8))
    with pytest.raises(RuntimeError, match="has no range yet"):
        profile_forward(uncalibrated)


def test_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_model.py").write_text(
        "import torch\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())\n"
        "number = 3\n"
        "def nothing():\n"
        "    return None\n"
        "def sized(n):\n"
        "    return torch.nn.Linear(n, 3)\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ["--input", "5,4", "--repeats", "1"]
    assert main(["profile", "my_model:make", *options]) == 0
    text = capsys.readouterr().out
    assert "one forward: simulated" in text and "linear" in text
    for name, message in (
        ("my_model", "a function is named as"),
        (".:make", "a function is named as"),
        ("my_model:number", "no function 'number'"),
        ("my_model:nothing", "a QuantizationSimModel, got NoneType"),
        ("my_model:sized", "must need no arguments: missing a required argument: 'n'"),
        ("no_such_module:make", "no module 'no_such_module'"),
    ):
        assert main(["profile", name, *options]) == 1
        assert message in capsys.readouterr().err
    assert main(["profile", "my_model:make", "--input", "5,7"]) == 1
    assert "could not be traced" in capsys.readouterr().err
    assert main(["profile", "my_model:make"]) == 1
    assert "give the sizes of its inputs as --input" in capsys.readouterr().err
    for wrong in (["--input", "5,x"], ["--rows", "0"], ["--threads", "none"]):
        with pytest.raises(SystemExit):
            main(["profile", "my_model:make", *options, *wrong])


def test_command_on_inputs_or_a_simulation_of_the_users(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_tokens.py").write_text(
        "import torch\n"
        "from aimetpp.quantsim import QuantizationSimModel\n"
        "def pair():\n"
        "    layers = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 3)\n"
        "    return torch.nn.Sequential(*layers), torch.tensor([[1, 8]])\n"
        "def no_input():\n"
        "    return pair()[0], 3\n"
        "def uncalibrated():\n"
        "    return QuantizationSimModel(*pair())\n"
        "def calibrated():\n"
        "    sim = uncalibrated()\n"
        "    sim.compute_encodings(lambda model: model(torch.tensor([[1, 8]])))\n"
        "    return sim\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for function in ("pair", "calibrated"):
        assert main(["profile", f"my_tokens:{function}", "--repeats", "1"]) == 0
        assert "embedding" in capsys.readouterr().out
    for arguments, message in (
        (["my_tokens:no_input"], "no_input: dummy_input must be a tensor"),
        (["my_tokens:pair", "--param-bits", "0"], "must be between 2 and 32, got 0"),
        (["my_tokens:uncalibrated"], "must return a calibrated simulation"),
        (["my_tokens:pair", "--input", "1,2"], "--input is for a function"),
        (["my_tokens:calibrated", "--param-bits", "4"], "--param-bits is for a model"),
        (["my_tokens:calibrated", "--config", "default"], "--config is for a model"),
    ):
        assert main(["profile", *arguments]) == 1
        assert message in capsys.readouterr().err


def test_columns_hold_long_names():
    name = "a_container_with_a_long_name." * 4 + "conv"
    calls = [CallTime(name, "conv2d", 1, 2.0, 1.0, 0.5), CallTime("x", "", 1, 1, 1, 0)]
    sites = [SiteTime(f"{name}.weight", 1, 0.5), SiteTime("x", 1, 0.0)]
    lines = ForwardProfile(3.0, 2.0, calls, sites).report().splitlines()
    tables = "\n".join(lines[3:]).split("\n\n")
    assert [len({len(line) for line in table.splitlines()}) for table in tables] == [
        1,
        1,
    ]
