# SPDX-License-Identifier: BSD-3-Clause
"""`aimetpp mmp`, from a user's file to the files that it writes."""

from __future__ import annotations

import json

import pytest
from mmp_models import make_sim

from aimetpp import cli

USER_CODE = """
import torch
from aimetpp.quantsim import QuantizationSimModel
from helper import width  # beside this file

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(width, width)
        self.last = torch.nn.Linear(width, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))

def make_model():
    torch.manual_seed(0)
    return Net(), torch.ones(2, width)

def make_sim():
    sim = QuantizationSimModel(*make_model())
    sim.compute_encodings(lambda model: model(torch.ones(2, width)))
    return sim

def make_nothing():
    return 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "user_net.py").write_text(USER_CODE)
    (tmp_path / "helper.py").write_text("width = 4\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(folder, *requests):
    (folder / "requests.json").write_text(json.dumps(requests))


@pytest.mark.parametrize("name", ["user_net.py:make_sim", "user_net:make_sim"])
def test_requests_become_a_profile_and_a_report(folder, capsys, name):
    write(
        folder,
        {"type": "Linear", "param": {"weight": "int4"}},
        {"layer": "last", "activation": "int16"},
    )
    assert cli.main(["mmp", name, "requests.json", "--results-dir", "out"]) == 0
    output = capsys.readouterr().out
    assert "[2] last: int8 -> int16" in output and "at requests.json, entry 2" in output
    assert {path.name for path in (folder / "out").iterdir()} == {
        "mmp_log.txt",
        "mmp_report.json",
        "mmp_report.html",
        "precision_profile.json",
    }
    assert output.startswith((folder / "out" / "mmp_log.txt").read_text())
    profile = json.loads((folder / "out" / "precision_profile.json").read_text())
    assert profile["precisions"]["first.weight"] == "int4"
    assert profile["precisions"]["last"] == "int16"
    document = json.loads((folder / "out" / "mmp_report.json").read_text())
    assert document["bit_ops"]["after"] < document["bit_ops"]["before"]


def test_a_second_run_starts_from_the_first_ones_profile(folder, capsys):
    write(folder, {"layer": "last", "activation": "int16"})
    arguments = ["mmp", "user_net.py:make_model", "requests.json"]
    assert cli.main(arguments) == 0
    write(folder, {"layer": "first", "param": {"weight": "int4"}})
    profile = "mmp_results/precision_profile.json"
    more = ["--profile", profile, "--config", "default_per_tensor"]
    assert cli.main([*arguments, *more]) == 0
    assert "Not calibrated" in capsys.readouterr().out
    precisions = json.loads((folder / profile).read_text())["precisions"]
    assert precisions["last"] == "int16" and precisions["first.weight"] == "int4"


def test_a_conflict_is_a_sentence_and_writes_nothing(folder, capsys):
    write(
        folder,
        {"layer": "/relu_0", "activation": "int16"},
        {"layer": "last", "activation": "int4"},
    )
    arguments = ["mmp", "user_net.py:make_sim", "requests.json", "--results-dir", "out"]
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("aimetpp: error: conflicting precision requests")
    assert "requests.json, entry 1" in error and "requests.json, entry 2" in error
    assert not (folder / "out").exists()
    assert cli.main([*arguments, "--no-strict"]) == 0
    assert "[1] /relu_0 output: int16; " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("user_net.py", '"file.py:function" or "package.module:function"'),
        ("nowhere.py:make_sim", "no file 'nowhere.py'"),
        ("nowhere:make_sim", "no module 'nowhere'"),
        ("user_net.py:mak_sim", "no function 'mak_sim'; it has Net, make_model"),
        ("user_net.py:make_nothing", "(model, dummy_input), got int"),
    ],
)
def test_what_is_wrong_with_the_function_is_a_sentence(folder, capsys, name, message):
    write(folder)
    assert cli.main(["mmp", name, "requests.json"]) == 1
    assert message in capsys.readouterr().err


def test_a_config_beside_a_simulation_has_no_effect_and_is_an_error(folder, capsys):
    write(folder)
    arguments = ["mmp", "user_net.py:make_sim", "requests.json", "--config", "default"]
    assert cli.main(arguments) == 1
    assert "which has its config" in capsys.readouterr().err


def test_a_profile_of_another_model_is_a_sentence(folder, capsys):
    write(folder)
    make_sim().save_precision_profile(folder / "profile.json")
    arguments = ["mmp", "user_net.py:make_sim", "requests.json"]
    assert cli.main([*arguments, "--profile", "profile.json"]) == 1
    assert "not a profile of this model" in capsys.readouterr().err


def test_no_file_changes_where_one_cannot_be_written(folder, capsys):
    write(folder, {"layer": "last", "activation": "int16"})
    out = folder / "out"
    (out / "mmp_report.json").mkdir(parents=True)
    (out / "mmp_log.txt").write_text("earlier")
    command = ["mmp", "user_net.py:make_sim", "requests.json", "--results-dir", "out"]
    assert cli.main(command) == 1
    assert "mmp_report.json'" in capsys.readouterr().err
    assert (out / "mmp_log.txt").read_text() == "earlier"
    assert {path.name for path in out.iterdir()} == {"mmp_report.json", "mmp_log.txt"}


@pytest.mark.parametrize(
    "code, error, line",
    [
        ("def make():\n    raise ValueError('mine')\n", "make raised ValueError", 2),
        ("\nraise OSError('mine')\n", "broken.py raised OSError", 2),
    ],
)
def test_an_error_of_the_users_code_says_where(folder, capsys, code, error, line):
    write(folder, {"layer": "last", "activation": "int16"})
    (folder / "broken.py").write_text(code)
    assert cli.main(["mmp", "broken.py:make", "requests.json"]) == 1
    message = capsys.readouterr().err
    assert f"{error} at " in message and f"broken.py:{line}: mine" in message
