# SPDX-License-Identifier: BSD-3-Clause
"""`aimetpp amp`: what it prints and writes, and what it says of wrong input."""

from __future__ import annotations

import re
import resource
import signal
from pathlib import Path

import pytest

from aimetpp import cli
from aimetpp.amp.report import PAGES
from aimetpp.commands.user_code import _load_file

USER_CODE = """
import torch
from aimetpp.quantsim import QuantizationSimModel

with open("loads", "a") as file:
    file.write("once ")

def make_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)), DATA

def calibrate(model):
    model(DATA)

def evaluate(model):
    return -float((model(DATA) - target).square().mean())

def text(model):
    return "0.9"

def nothing(model):
    model(DATA)

def nan(model):
    return float("nan")

def pair(model):
    return torch.zeros(2)

def two(model, loader):
    return 0.0

def none():
    return 0.0

def key(model):
    return {}["accuracy"]

def shape(model):
    return model(torch.zeros(1, 7)).sum()

def fails():
    raise RuntimeError("no weights")

def other_input():
    return make_model()[0], torch.zeros(1, 7)

def late(model):
    calls.append(0)
    return end() if len(calls) == 5 else evaluate(model)

def end():
    raise KeyboardInterrupt

calls = []
DATA = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
target = make_model()[0](DATA).detach()
"""


JOURNAL = Path("out/.cache/evaluations.jsonl")
CALIBRATE = ("--calibrate", "amp_net.py:calibrate")
CANDIDATES = ("--candidates", "16/16", "8/8", "8/int4")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("amp_net.py").write_text(USER_CODE)
    return tmp_path


def command(
    evaluate: str = "evaluate", *options: str, model: str = "make_model"
) -> list[str]:
    functions = (
        name if ":" in name else f"amp_net.py:{name}" for name in (model, evaluate)
    )
    return ["amp", *functions, "--results-dir", "out", *CANDIDATES, *options]


def message(
    arguments: list[str], capsys: pytest.CaptureFixture[str], status: int = 1
) -> str:
    """What the command says on stderr: one line."""
    assert cli.main(arguments) == status
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "Traceback" not in text
    return text


def test_amp_command_estimates_and_searches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "needs a calibrated simulation" in message(command(), capsys)
    searching = command("evaluate", *CALIBRATE)
    assert cli.main([*searching, "--estimate"]) == 0
    assert "1, sensitivity" in capsys.readouterr().out
    assert cli.main(searching) == 0
    assert "A8 W4" in capsys.readouterr().out
    assert Path("loads").read_text() == "once "  # three functions, four runs
    files = {path.name for path in Path("out").iterdir()}
    assert files >= {*PAGES, "precision_profile.json", "pareto_list.json"}


@pytest.mark.parametrize(
    ("function", "match"),
    [
        ("text", r"phase2 \(amp_net.py:text\) must return a number, got str '0.9'$"),
        ("nothing", r"\(amp_net.py:nothing\) must return a number, got None$"),
        ("pair", r"\(amp_net.py:pair\) must return a number, got Tensor$"),
        ("nan", r"must be a number, got nan for the model .*, from amp_net.py:nan$"),
        ("two", r"two must take one argument, the model: missing .*'loader'$"),
        ("none", r"none must take one argument, the model: too many positional"),
        ("key", r"amp_net.py:key raised KeyError at .*/amp_net.py:\d+: 'accuracy'$"),
        ("shape", r"shape raised RuntimeError at .*/amp_net.py:\d+: mat1 and mat2"),
        ("calls", r"amp_net.py has no function 'calls'; it has calibrate, "),
    ],
)
def test_an_evaluation_that_gives_no_score_is_named(
    function: str, match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(match, message(command(function, *CALIBRATE), capsys))


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ("fails", r"amp_net.py:fails raised RuntimeError at .*py:\d+: no weights$"),
        ("other_input", r"amp_net.py:other_input: .*could not be traced"),
        ("syntax.py:f", r"syntax.py raised SyntaxError at .*syntax.py:1: "),
        ("imports.py:f", r"imports.py raised ModuleNotFoundError at .*imports.py:1: "),
        ("imports:f", r"imports raised ModuleNotFoundError at .*imports.py:1: No mod"),
        ("nowhere:f", r"no module 'nowhere'"),
    ],
)
def test_a_model_that_cannot_be_made_is_named(
    model: str, match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("syntax.py").write_text("def f(:\n")
    Path("imports.py").write_text("import nowhere_to_be_found\n")
    assert re.search(match, message(command(model=model), capsys))


def test_calibration_that_fails_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    text = message(command("evaluate", "--calibrate", "amp_net.py:shape"), capsys)
    assert "amp_net.py:shape raised RuntimeError at" in text


@pytest.mark.parametrize("drop", ["-0.1", "nan", "much"])
def test_a_drop_is_no_negative_number(
    drop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(command("evaluate", f"--allowed-drop={drop}"))
    assert error.value.code == 2
    assert f"must be a number from 0, got '{drop}'" in capsys.readouterr().err


def test_convert_ops_are_in_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--convert-ops", "--allowed-drop", "0.1", "--algorithm", "BruteForce")
    assert cli.main(command("evaluate", *CALIBRATE, *options)) == 0
    out = capsys.readouterr().out
    assert re.search(r"\n +alpha +score +convert cost +bit-ops\n", out)


def test_candidates_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([*command(), "--candidates", "8"])
    assert "activations/weights such as 8/4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("end", "status", "says"),
    [
        ("raise KeyboardInterrupt", 130, "the same command goes on with the scores in"),
        ("return None", 1, "late) must return a number, got None"),
        ("raise KeyError(3)", 1, "late raised KeyError at"),
    ],
)
def test_what_was_measured_before_an_error_is_kept(
    end: str, status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = command("broken.py:late", *CALIBRATE, model="broken.py:make_model")
    code = USER_CODE.replace("raise KeyboardInterrupt", end)
    Path("broken.py").write_text(code)
    assert says in message(failing, capsys, status)
    kept = JOURNAL.read_text().splitlines()
    assert len(kept) == 1 + 4
    _load_file.cache_clear()
    Path("broken.py").write_text(code.replace("calls = []", "calls = [0] * 9"))
    assert cli.main(failing) == 0
    assert JOURNAL.read_text().splitlines()[:5] == kept


def test_a_full_disk_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A limit on the size of files stands for the disk."""
    assert cli.main(command("evaluate", *CALIBRATE, "--estimate")) == 0
    capsys.readouterr()
    size = JOURNAL.stat().st_size
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
    try:
        status = cli.main(command("evaluate", *CALIBRATE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    text = capsys.readouterr().err
    assert status == 1 and f"File too large: '{JOURNAL}'" in text
    with pytest.warns(RuntimeWarning, match="1 of its .* scores are damaged"):
        assert cli.main(command("evaluate", *CALIBRATE)) == 0
