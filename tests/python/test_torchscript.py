# SPDX-License-Identifier: BSD-3-Clause
"""TorchScript files: equal to the simulation, with our ops and without."""

import subprocess
import sys
import warnings

import pytest
import torch
from export_models import Nested, nested_example
from torch import nn

from aimetpp.export import torchscript
from aimetpp.export.torchscript import (
    aten_fake_quantize,
    aten_float_quantize,
    export_torchscript,
)
from aimetpp.quantization import FloatQuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        y = self.relu(self.bn(self.conv(x)))
        y = torch.cat([y, self.relu(y + 1)], 1).mean((2, 3))
        return self.fc(y)


@pytest.fixture
def images():
    return torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def sim(images):
    torch.manual_seed(0)
    sim = QuantizationSimModel(Net().eval(), images[:2])
    sim.compute_encodings(lambda m: m(images))
    precisions = sim.precisions()
    precisions[1], precisions[2] = "int4", "fp16"
    sim.apply_precisions(precisions)
    return sim


def op_kinds(path):
    return {node.kind() for node in torch.jit.load(path).inlined_graph.nodes()}


@pytest.mark.parametrize("portable", [False, True])
def test_file_equals_the_simulation_at_another_batch_size(
    sim, images, tmp_path, portable
):
    path = tmp_path / "net.pt"
    sim.export_torchscript(path, portable=portable)
    with torch.no_grad():
        got, want = torch.jit.load(path)(images), sim.model(images)
    assert torch.equal(got, want)
    ours = {kind for kind in op_kinds(path) if kind.startswith("aimetpp::")}
    assert bool(ours) is not portable
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt"]


# PyTorch's deprecation of torch.jit is not the caller's to act on.
@pytest.mark.parametrize("portable", [False, True])
def test_export_warns_of_nothing(sim, tmp_path, portable):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        sim.export_torchscript(tmp_path / "net.pt", portable=portable)
    assert [str(warning.message) for warning in heard] == []


def test_portable_file_runs_without_aimetpp(sim, images, tmp_path):
    export_torchscript(sim, tmp_path / "net.pt", portable=True)
    torch.save(images, tmp_path / "x.pt")
    code = (
        "import sys, torch\n"
        "sys.modules['aimetpp'] = None\n"
        "x = torch.load(sys.argv[1] + '/x.pt')\n"
        "with torch.no_grad():\n"
        "    y = torch.jit.load(sys.argv[1] + '/net.pt')(x)\n"
        "torch.save(y, sys.argv[1] + '/y.pt')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path)
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "y.pt"), sim.model(images))


@pytest.mark.parametrize("scale", [None, 0.3, torch.tensor([0.1, 0.7, 3.0])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "form", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_float_formats_in_aten_ops_equal_the_quantizer(form, dtype, scale):
    axis = 1 if isinstance(scale, torch.Tensor) else None
    quantizer = FloatQuantizeDequantize(form, scale=scale, channel_axis=axis)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 3, 5, generator=generator).to(dtype)
    x = x * 2.0 ** torch.randint(-30, 15, x.shape, generator=generator)
    special = [0.0, -0.0, float("inf"), float("-inf"), float("nan")]
    x[:5] = torch.tensor(special).to(dtype)[:, None, None]
    largest = quantizer.largest if quantizer.saturates else None
    y = aten_float_quantize(x.to(dtype), form, largest, quantizer.scale, axis)
    expected = quantizer(x.to(dtype))
    numbers = ~expected.isnan()
    assert torch.equal(y.signbit()[numbers], expected.signbit()[numbers])
    assert torch.equal(y.nan_to_num(7.5), expected.nan_to_num(7.5))


def test_keyword_inputs(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, a, b):
            return self.fc(a - b)

    torch.manual_seed(0)
    example = {"a": torch.randn(3, 4), "b": torch.randn(3, 4)}
    sim = QuantizationSimModel(Two().eval(), example)
    sim.compute_encodings(lambda m: m(**example))
    export_torchscript(sim, tmp_path / "two.pt")
    got = torch.jit.load(tmp_path / "two.pt")(**example)
    assert torch.equal(got, sim.model(**example))


def test_nested_and_keyword_only_inputs(tmp_path):
    torch.manual_seed(0)
    example = nested_example()
    sim = QuantizationSimModel(Nested().eval(), example)
    sim.compute_encodings(lambda m: m(**example))
    export_torchscript(sim, tmp_path / "nested.pt")
    loaded = torch.jit.load(tmp_path / "nested.pt")
    got, want = loaded(**example), sim.model(**example)
    assert torch.equal(got["sum"], want["sum"])
    assert torch.equal(got["rest"], want["rest"])
    assert "forward" not in sim.model.__dict__


class Open(nn.Module):
    """As transformers' models: an optional argument, a keyword-only one, **kwargs."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x, shift=None, *, factor, **rest):
        y = self.fc(x * factor)
        y = y if shift is None else y + shift
        return y + rest["last"] if "last" in rest else y


@pytest.mark.parametrize(
    "names", [["x", "factor"], ["x", "factor", "last"], ["x", "shift", "factor"]]
)
def test_arguments_of_an_open_signature(names, tmp_path):
    generator = torch.Generator().manual_seed(0)
    sizes = {"x": 4, "factor": 4, "shift": 2, "last": 2}
    example = {n: torch.randn(3, sizes[n], generator=generator) for n in names}
    sim = QuantizationSimModel(Open().eval(), example)
    sim.compute_encodings(lambda m: m(**example))
    export_torchscript(sim, tmp_path / "open.pt")
    got = torch.jit.load(tmp_path / "open.pt")(**example)
    assert torch.equal(got, sim.model(**example))


def test_any_number_of_inputs(tmp_path):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, *tensors):
            return self.fc(sum(tensors))

    torch.manual_seed(0)
    example = tuple(torch.randn(3, 3, 4).unbind())
    sim = QuantizationSimModel(Sum().eval(), example)
    sim.compute_encodings(lambda m: m(*example))
    export_torchscript(sim, tmp_path / "sum.pt")
    assert torch.equal(
        torch.jit.load(tmp_path / "sum.pt")(*example), sim.model(*example)
    )


def test_training_flags_survive(sim, tmp_path):
    sim.model.train()
    sim.model.bn.eval()
    export_torchscript(sim, tmp_path / "net.pt")
    assert sim.model.training
    assert not sim.model.bn.training


def test_uncalibrated_leaves_no_file(images, tmp_path):
    sim = QuantizationSimModel(Net().eval(), images[:2])
    with pytest.raises(RuntimeError, match="compute_encodings"):
        export_torchscript(sim, tmp_path / "net.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_differs_from_its_trace_is_an_error(tmp_path):
    class Random(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x) + torch.rand(3, 4)

    torch.manual_seed(0)
    x = torch.randn(3, 4)
    sim = QuantizationSimModel(Random().eval(), x)
    sim.compute_encodings(lambda m: m(x))
    with pytest.raises(RuntimeError, match="output 0 of the trace differs"):
        export_torchscript(sim, tmp_path / "net.pt")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder(sim, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written"):
        export_torchscript(sim, tmp_path / "file" / "net.pt")


def test_our_ops_in_a_portable_trace_are_an_error(sim, monkeypatch, tmp_path):
    monkeypatch.setattr(
        torchscript,
        "aten_fake_quantize",
        lambda x, *_: torch.ops.aimetpp.site(x, 0),
    )
    with pytest.raises(RuntimeError, match="must leave only aten ops.*aimetpp::site"):
        export_torchscript(sim, tmp_path / "net.pt", portable=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_aten_fake_quantize_by_hand(dtype):
    x = torch.tensor([[-9.0, 0.25, 0.75], [-9.0, 0.25, 0.75]], dtype=dtype)
    scale, offset = torch.tensor([0.5, 0.25]), torch.tensor([-2.0, 0.0])
    got = aten_fake_quantize(x, scale, offset, 0, 7, 0)
    assert got.dtype == dtype
    assert got.tolist() == [[-1.0, 0.0, 1.0], [0.0, 0.25, 0.75]]
    per_tensor = aten_fake_quantize(x[0], scale[:1], offset[:1], 0, 7, None)
    assert per_tensor.tolist() == [-1.0, 0.0, 1.0]


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return {"sum": self.fc(x), "pair": (x, x + 1)}


def test_a_result_without_a_type_in_torchscript_is_an_error(tmp_path):
    x = torch.randn(2, 4)
    sim = QuantizationSimModel(Mixed().eval(), x)
    sim.compute_encodings(lambda model: model(x))
    words = r"returns {sum: Tensor, pair: tuple\(Tensor, Tensor\)}: wrap it"
    with pytest.raises(RuntimeError, match=words):
        sim.export_torchscript(tmp_path / "net.pt")
    assert not list(tmp_path.iterdir())
