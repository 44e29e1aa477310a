# SPDX-License-Identifier: BSD-3-Clause
"""Block-wise weights: quantizers, simulation, files and ONNX."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from aimetpp.quantization.affine import Dequantize, Quantize, QuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel
from aimetpp.quantsim.config_utils import set_blockwise_quantization_for_weights

# (tensor, shape of the ranges, block_size)
CUTS: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = [
    ((6, 8), (6, 2), (1, 4)),
    ((6, 8), (6, 2), (-1, -1)),
    ((6, 8), (3, 4), (2, 2)),
    ((6, 8), (1, 2), (6, 4)),
    ((6, 8), (6, 1), (1, 8)),
    ((4, 6, 3, 3), (4, 2, 1, 1), (1, 3, 3, 3)),
    ((6, 4, 3, 3), (2, 4, 1, 1), (3, 1, 3, 3)),
    ((6, 4, 3, 3), (2, 4, 3, 1), (3, 1, 1, 3)),
]


def block_indices(
    size: tuple[int, ...], counts: tuple[int, ...]
) -> list[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """(index of the range, slices of the tensor) of each block."""
    found = []
    for index in np.ndindex(*counts):
        steps = [total // count for total, count in zip(size, counts, strict=True)]
        cut = tuple(
            slice(i * step, (i + 1) * step)
            for i, step in zip(index, steps, strict=True)
        )
        found.append((index, cut))
    return found


@pytest.mark.parametrize("scheme", ["min_max", "tf_enhanced", "percentile", "mse"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("size", "shape", "block_size"), CUTS)
def test_each_block_is_a_tensor_of_its_own(
    size: tuple[int, ...],
    shape: tuple[int, ...],
    block_size: tuple[int, ...],
    symmetric: bool,
    scheme: str,
) -> None:
    torch.manual_seed(1)
    x = torch.randn(size)
    blockwise = QuantizeDequantize(
        shape, 4, symmetric, scheme=scheme, block_size=block_size
    )
    with blockwise.compute_encodings():
        assert blockwise(x) is x
    y = blockwise(x)
    assert y.shape == x.shape
    scale, offset = blockwise.get_scale(), blockwise.get_offset()
    low, high = blockwise.get_min(), blockwise.get_max()
    for numbers in (scale, offset, low, high):
        assert numbers is not None
        assert numbers.shape == shape
    assert scale is not None
    for index, cut in block_indices(size, shape):
        alone = QuantizeDequantize((), 4, symmetric, scheme=scheme)
        with alone.compute_encodings():
            alone(x[cut])
        assert torch.equal(y[cut], alone(x[cut]))
        assert scale[index] == alone.get_scale()


@pytest.mark.parametrize(("size", "shape", "block_size"), CUTS)
def test_gradients_are_those_of_separate_blocks(
    size: tuple[int, ...], shape: tuple[int, ...], block_size: tuple[int, ...]
) -> None:
    torch.manual_seed(2)
    x = torch.randn(size, requires_grad=True)
    upstream = torch.randn(size)
    blockwise = QuantizeDequantize(shape, 4, False, block_size=block_size)
    blockwise.set_range(torch.full(shape, -0.7), torch.full(shape, 0.9))
    blockwise(x).backward(upstream)
    assert x.grad is not None
    assert blockwise.min.grad is not None
    for index, cut in block_indices(size, shape):
        part = x.detach()[cut].clone().requires_grad_()
        alone = QuantizeDequantize((), 4, False)
        alone.set_range(-0.7, 0.9)
        alone(part).backward(upstream[cut])
        assert torch.equal(x.grad[cut], part.grad)
        torch.testing.assert_close(blockwise.min.grad[index], alone.min.grad)


def test_quantize_and_dequantize_are_the_two_halves() -> None:
    torch.manual_seed(3)
    x = torch.randn(4, 8)
    kinds: list[Any] = [Quantize, Dequantize, QuantizeDequantize]
    halves = [kind((4, 2), 8, True, block_size=(1, 4)) for kind in kinds]
    for quantizer in halves:
        quantizer.set_range(-torch.ones(4, 2), torch.ones(4, 2))
    quantize, dequantize, both = halves
    q = quantize(x)
    assert torch.equal(q, q.round())
    assert torch.equal(dequantize(q), both(x))


def test_another_bitwidth_needs_no_data() -> None:
    torch.manual_seed(4)
    x = torch.randn(8, 32)
    first = QuantizeDequantize((8, 4), 8, True, block_size=(1, 8))
    again = QuantizeDequantize((8, 4), 4, True, block_size=(1, 8))
    for quantizer in (first, again):
        with quantizer.compute_encodings():
            quantizer(x)
    first.bitwidth = 4
    assert torch.equal(first(x), again(x))
    assert torch.equal(copy.deepcopy(first)(x), again(x))


def test_wrong_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="2 dimensions of shape"):
        QuantizeDequantize((4, 2), 8, True, block_size=(4,))
    with pytest.raises(ValueError, match="1 or more"):
        QuantizeDequantize((4, 2), 8, True, block_size=(1, 0))
    with pytest.raises(ValueError, match="exclude each"):
        QuantizeDequantize((4, 2), 8, True, block_size=(1, 4), channel_axis=0)
    with pytest.raises(ValueError, match="or block_size be given"):
        QuantizeDequantize((4, 2), 8, True)
    quantizer = QuantizeDequantize((4, 2), 8, True, block_size=(1, 4))
    quantizer.label = "fc.weight"
    quantizer.set_range(-1, 1)
    for shape in [(4, 9), (4, 8, 1), (8, 8)]:
        with pytest.raises(ValueError, match=r"fc.weight.*cannot be cut"):
            quantizer(torch.zeros(shape))


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.up = torch.nn.ConvTranspose2d(8, 4, 2)
        self.head = torch.nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.up(self.conv(x)))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def sim() -> QuantizationSimModel:
    torch.manual_seed(5)
    return QuantizationSimModel(Net().eval(), torch.randn(1, 3, 6, 6))


def calibrate(sim: QuantizationSimModel) -> torch.Tensor:
    torch.manual_seed(6)
    x = torch.randn(4, 3, 6, 6)
    sim.compute_encodings(lambda model: model(x))
    return x


def test_a_simulation_takes_one_block_size_for_channels(
    sim: QuantizationSimModel,
) -> None:
    x = calibrate(sim)
    model: Any = sim.model
    with pytest.warns(RuntimeWarning, match=r"conv.weight \(8, 3, 3, 3\)"):
        set_blockwise_quantization_for_weights(
            sim, [torch.nn.Conv2d, torch.nn.Linear], 4, True, 2
        )
    set_blockwise_quantization_for_weights(sim, [model.up], 4, True, 4)
    assert model.conv.param_quantizers["weight"].block_size is None
    assert model.head.param_quantizers["weight"].min.shape == (8, 2)
    assert model.up.param_quantizers["weight"].min.shape == (2, 4, 1, 1)
    assert model.up.param_quantizers["weight"].block_size == (4, 1, 2, 2)
    # Calibrated already, because the simulation was; and again with it.
    with torch.no_grad():
        first = sim.model(x)
        calibrate(sim)
        assert first.isfinite().all()
        weight = model.head.param_quantizers["weight"](model.head.weight)
        expected = model.head.weight.reshape(8, 2, 2)
        scale = expected.abs().amax(2, keepdim=True) / 7
    assert len(torch.unique(weight[0, :2] / scale[0, 0])) <= 16
    blocks = [s for s in sim.sites() if s.name == "head.weight"]
    assert blocks[0].quantizer is model.head.param_quantizers["weight"]
    assert "16 blocks of size (1, 2)" in str(blocks[0].quantizer)


def test_a_function_may_choose_and_blocks_may_be_given_in_full(
    sim: QuantizationSimModel,
) -> None:
    set_blockwise_quantization_for_weights(
        sim,
        lambda module: isinstance(module, torch.nn.Linear),
        8,
        False,
        (2, -1),
    )
    model: Any = sim.model
    assert model.head.param_quantizers["weight"].min.shape == (4, 1)
    assert not model.head.param_quantizers["weight"].is_initialized()
    calibrate(sim)
    assert sim.is_calibrated()


def test_what_cannot_be_chosen_is_refused(sim: QuantizationSimModel) -> None:
    set_blocks: Any = set_blockwise_quantization_for_weights
    with pytest.raises(TypeError, match="arg must be"):
        set_blocks(sim, "head", 4, True, 2)
    with pytest.raises(ValueError, match="not a quantized module"):
        set_blocks(sim, [torch.nn.Linear(2, 2)], 4, True, 2)
    for nothing in ([], [torch.nn.LSTM], lambda module: False):
        with pytest.raises(ValueError, match="arg chooses no quantized module"):
            set_blocks(sim, nothing, 4, True, 2)
    with pytest.raises(ValueError, match="for each of the 2 axes of head.weight"):
        set_blocks(sim, [sim.model.head], 4, True, (1, 2, 3))
    with pytest.raises(ValueError, match="bitwidth"):
        set_blocks(sim, [sim.model.head], 1, True, 2)
    model: Any = sim.model
    assert model.head.param_quantizers["weight"].block_size is None


def exported(
    sim: QuantizationSimModel, folder: Path, version: str
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    path = folder / f"net_{version}.onnx"
    sim.onnx.export(sim.dummy_input, path, encoding_version=version)
    encodings = json.loads(path.with_suffix(".encodings").read_text())
    return onnx.load(path), encodings


@pytest.mark.parametrize("bitwidth", [4, 8])
def test_onnx_holds_the_blocks(
    sim: QuantizationSimModel, tmp_path: Path, bitwidth: int
) -> None:
    model: Any = sim.model
    set_blockwise_quantization_for_weights(
        sim, [model.up, model.head], bitwidth, True, 2
    )
    x = calibrate(sim)[:1]
    onnx_model, encodings = exported(sim, tmp_path, "2.0.0")
    onnx.checker.check_model(onnx_model, full_check=True)
    with torch.no_grad():
        expected = sim.model(x)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    )
    session = onnxruntime.InferenceSession(
        onnx_model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(got), expected, atol=0.05, rtol=0)
    leaf = next(e for e in encodings["encodings"] if e["name"] == "head.weight")
    assert leaf["output_dtype"] == f"int{bitwidth}"
    assert (leaf["axis"], leaf["block_size"]) == (1, 2)
    scale = model.head.param_quantizers["weight"].get_scale()
    assert leaf["y_scale"] == scale.tolist()
    assert "y_zero_point" not in leaf


def test_encodings_files_name_the_blocks(
    sim: QuantizationSimModel, tmp_path: Path
) -> None:
    model: Any = sim.model
    set_blockwise_quantization_for_weights(sim, [model.head], 4, False, 2)
    calibrate(sim)
    quantizer = model.head.param_quantizers["weight"]
    offset = quantizer.get_offset().flatten().tolist()
    _, encodings = exported(sim, tmp_path, "1.0.0")
    leaf = next(e for e in encodings["param_encodings"] if e["name"] == "head.weight")
    assert (leaf["enc_type"], leaf["block_size"]) == ("PER_BLOCK", 2)
    assert leaf["scale"] == quantizer.get_scale().flatten().tolist()
    assert leaf["offset"] == offset
    _, encodings = exported(sim, tmp_path, "0.6.1")
    assert [e["offset"] for e in encodings["param_encodings"]["head.weight"]] == offset
    _, encodings = exported(sim, tmp_path, "2.0.0")
    leaf = next(e for e in encodings["encodings"] if e["name"] == "head.weight")
    assert np.ravel(leaf["y_zero_point"]).tolist() == [-o for o in offset]


def test_blocks_that_files_cannot_express_are_an_error(
    sim: QuantizationSimModel, tmp_path: Path
) -> None:
    model: Any = sim.model
    set_blockwise_quantization_for_weights(sim, [model.head], 4, True, (2, 2))
    calibrate(sim)
    with pytest.raises(ValueError, match=r"head.weight.*cut one axis"):
        exported(sim, tmp_path, "1.0.0")
    set_blockwise_quantization_for_weights(sim, [model.head], 4, True, (2, -1))
    with pytest.raises(ValueError, match=r"head.weight.*single channels"):
        exported(sim, tmp_path, "1.0.0")
    exported(sim, tmp_path, "2.0.0")


def test_encodings_and_torchscript_come_back(
    sim: QuantizationSimModel, tmp_path: Path
) -> None:
    model: Any = sim.model
    set_blockwise_quantization_for_weights(sim, [model.up, model.head], 4, True, 2)
    x = calibrate(sim)
    sim.save_encodings_to_json(tmp_path, "blocks")
    with torch.no_grad():
        expected = sim.model(x)
    again = copy.deepcopy(sim)
    for quantizer in again.quantizers_by_index:
        quantizer.reset()
    again.load_encodings(tmp_path / "blocks.json")
    with torch.no_grad():
        assert torch.equal(again.model(x), expected)
    for portable in (False, True):
        path = tmp_path / f"{portable}.pt"
        sim.export_torchscript(path, portable=portable, example_inputs=x)
        assert torch.equal(torch.jit.load(path)(x), expected)


def test_learned_block_ranges_train(sim: QuantizationSimModel) -> None:
    model: Any = sim.model
    set_blockwise_quantization_for_weights(sim, [model.head], 4, True, 2)
    x = calibrate(sim)
    quantizer = model.head.param_quantizers["weight"]
    before = quantizer.max.detach().clone()
    optimizer = torch.optim.SGD(sim.model.parameters(), lr=0.1)
    sim.model(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(quantizer.max, before)
    torch._dynamo.reset()
    compiled = torch.compile(sim.model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), sim.model(x))
    torch._dynamo.reset()
