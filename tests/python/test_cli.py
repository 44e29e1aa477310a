# SPDX-License-Identifier: BSD-3-Clause
"""The command line and the demo that stands behind it."""

import subprocess
import sys

import numpy as np
import pytest

from aimetpp import cli, demo
from aimetpp.demo import check, digits
from aimetpp.demo.tables import (
    Setting,
    difference_in_points,
    format_comparison,
    verdict,
)


def answers(text):
    return np.array([c == "1" for c in text])


def test_difference_counts_images_on_which_only_one_is_right():
    a = Setting("a", 1.0, answers("1111110000"))
    b = Setting("b", 1.0, answers("1111001000"))
    points, noise = difference_in_points(a, b)
    assert points == pytest.approx(10.0)
    # Three images decide: two standard errors are 2 * sqrt(3) images of ten.
    assert noise == pytest.approx(20 * 3**0.5)


def test_verdicts():
    chosen = Setting("chosen", 1.0, answers("1" * 100))
    assert verdict(chosen, Setting("a", 0.5, answers("0" * 50 + "1" * 50))) == "beaten"
    assert verdict(chosen, Setting("b", 1.0, answers("0" + "1" * 99))) == (
        "beaten, but within the noise"
    )
    assert verdict(chosen, Setting("c", 1.0, answers("1" * 100))) == "NOT beaten"
    assert verdict(chosen, Setting("d", 1.5, answers("0" * 100))) == "costs more"


def test_comparison_says_how_many_are_beaten():
    chosen = Setting("chosen", 20.0, answers("1" * 90 + "0" * 10))
    others = [
        Setting("A16W16", 100.0, answers("1" * 91 + "0" * 9)),
        Setting("A8W4", 12.5, answers("1" * 70 + "0" * 30)),
        Setting("A4W4", 6.0, answers("1" * 95 + "0" * 5)),
    ]
    text = format_comparison(chosen, others, 100.0)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == [
        "A16W16",
        "chosen",
        "A8W4",
        "A4W4",
    ]
    assert "0.2000" in lines[2]
    assert "+20.00 points" in lines[3]
    assert "NOT beaten" in lines[4]
    assert "beats 1 of the 2 uniform settings" in text
    assert "One of 100 images is 1.00 points" in text


def test_agreement_line():
    want = np.array([[0.0, 1.0], [1.0, 0.0]])
    got = np.array([[0.0, 1.0], [1.0, 1.5]])
    line = check.agreement("x", got, want, step=0.5)
    assert "max diff       1.5 =  3.00 steps" in line
    assert "75.00% of outputs on the same step" in line
    assert "argmax  50.00%" in line


def test_bad_arguments_are_sentences(capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(["demo", "--allowed-drop", "2"])
    assert error.value.code == 2
    assert "must be a number from 0 to 1, got '2'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([])
    assert "required: COMMAND" in capsys.readouterr().err


def test_unwritable_results_folder_is_a_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--results-dir", str(tmp_path / "file")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("aimetpp: error:")
    assert str(tmp_path / "file") in error
    assert "Traceback" not in error


def test_missing_sklearn_is_a_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert cli.main(["demo", "--results-dir", str(tmp_path)]) == 1
    assert "pip install scikit-learn" in capsys.readouterr().err


def test_module_runs():
    done = subprocess.run(
        [sys.executable, "-m", "aimetpp", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "demo" in done.stdout


def test_demo_end_to_end(tmp_path, capfd, monkeypatch):
    """The demo with little training and two candidates."""
    pytest.importorskip("sklearn")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(digits, "EPOCHS", 4)
    monkeypatch.setattr(digits, "FINE_TUNE_EPOCHS", 1)
    monkeypatch.setattr(demo, "BIT_WIDTHS", ((8, 8), (8, 4)))
    status = cli.main(
        ["demo", "--results-dir", str(tmp_path), "--allowed-drop", "0.02"]
    )
    output = capfd.readouterr().out
    assert status == 0, output
    assert "Pareto table" in output
    assert "One of 597 images is 0.17 points" in output
    assert "ONNX in onnxruntime, node by node" in output
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {
        "pareto_list.json",
        "pareto_curve.html",
        "quantizer_group_sensitivity.html",
        "digits.onnx",
        "digits.encodings",
        "digits_torch.encodings",
        "digits.torchscript.pt",
        "digits_portable.torchscript.pt",
    }
