# SPDX-License-Identifier: BSD-3-Clause
"""FP32, FP16 and INT8 in one model, found by searches of both kinds on both fronts."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx_models import make_model, random_arrays
from onnx_running import run
from test_quark import DATA, Reader, auto, network, precisions

from aimetpp.common.defs import QuantizationDataType
from aimetpp.mixed_precision import auto_mixed_precision, choose_mixed_precision
from aimetpp.mixed_precision.auto import L2Target
from aimetpp.onnx import QuantizationSimModel as OnnxSimModel
from aimetpp.onnx import mixed_precision as onnx_mixed_precision
from aimetpp.onnx.export import build_qdq_model
from aimetpp.quantsim import QuantizationSimModel
from aimetpp.quark import (
    CalibMethod,
    Config,
    Float16Spec,
    Int8Spec,
    ModelQuantizer,
    QConfig,
    QLayerConfig,
    VitisQuantType,
)

INT, FLOAT = QuantizationDataType.int, QuantizationDataType.float
FP32, FP16, INT8 = ((32, FLOAT),) * 2, ((16, FLOAT),) * 2, ((8, INT),) * 2
WEIGHTS = random_arrays(3, w1=(6, 6), w2=(6, 6), w3=(6, 3))
# INT8 in the first layer is felt least, in the second most.
for name, factor in (("w1", 0.01), ("w2", 1.0), ("w3", 3.0)):
    WEIGHTS[name] *= factor
X = random_arrays(4, x=(32, 6))["x"]


def onnx_sim() -> Any:
    """x (MatMul w1) + x -> (MatMul w2) + -> MatMul w3 -> y."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w1"], ["a"], "first"),
        node("Add", ["a", "x"], ["b"], "sum"),
        node("MatMul", ["b", "w2"], ["c"], "second"),
        node("Tanh", ["c"], ["d"], "tanh"),
        node("MatMul", ["d", "w3"], ["y"], "third"),
    ]
    sim = OnnxSimModel(make_model(nodes, WEIGHTS, {"x": ("N", 6)}, ["y"]), X)
    sim.compute_encodings(lambda session: session.run(None, {"x": X}))
    return sim


class Layers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name, weight in WEIGHTS.items():
            layer = torch.nn.Linear(*weight.shape, bias=False)
            layer.weight.data = torch.from_numpy(weight.T.copy())
            self.add_module(name, layer)
        self.tanh = torch.nn.Tanh()

    def forward(self, x: torch.Tensor) -> Any:
        return self.w3(self.tanh(self.w2(self.w1(x) + x)))


def torch_sim() -> Any:
    sim = QuantizationSimModel(Layers().eval(), torch.from_numpy(X))
    sim.compute_encodings(lambda model: model(torch.from_numpy(X)))
    return sim


def output_of(runner: Any) -> np.ndarray:
    if isinstance(runner, torch.nn.Module):
        with torch.no_grad():
            return runner(torch.from_numpy(X)).numpy()
    return runner.run(None, {"x": X})[0]


def noise(runner: Any, reference: np.ndarray) -> float:
    difference = output_of(runner).astype(float) - reference
    return float(np.linalg.norm(difference, axis=1).mean())


def float_output(sim: Any) -> np.ndarray:
    with sim.quantizers_off():
        return output_of(sim.runner).astype(float)


# All at FP16 is 0.0053 off, at INT8 0.16.
LIMITS = [(0.06, {"fp16", "int8"}), (0.005, {"fp32", "fp16", "int8"})]


@pytest.mark.parametrize(("limit", "formats"), LIMITS)
@pytest.mark.parametrize("make", [onnx_sim, torch_sim])
def test_a_front_of_three_formats(
    make: Any, limit: float, formats: set[str], tmp_path: Any
) -> None:
    sim = make()
    reference = float_output(sim)
    choose = choose_mixed_precision
    arguments: list[Any] = [sim, torch.from_numpy(X)]
    if make is onnx_sim:
        choose, arguments = onnx_mixed_precision.choose_mixed_precision, [sim]

    def score(runner: Any) -> float:
        return -noise(runner, reference)

    found = choose(
        *arguments,
        [FP32, FP16, INT8],
        score,
        score,
        limit,
        tmp_path,
        True,
        None,
        progress=False,
    )
    assert found.fp32_score == found.baseline_score == 0
    assert set(sim.precisions()) == formats
    assert -score(sim.runner) <= limit
    # A product costs 32 x 32, 16 x 16 or 8 x 8 bits.
    assert 1 / 16 < found.chosen.cost < 1
    assert {candidate for _, candidate in found.narrowed} == {FP16, INT8}
    if make is onnx_sim:
        check_export(sim)


@pytest.mark.parametrize(("limit", "formats"), LIMITS)
@pytest.mark.parametrize("make", [onnx_sim, torch_sim])
def test_narrowing_through_three_formats(
    make: Any, limit: float, formats: set[str]
) -> None:
    sim = make()
    reference = float_output(sim)
    data = [X] if make is onnx_sim else [torch.from_numpy(X)]
    found = auto_mixed_precision(
        sim,
        "fp32",
        ["fp16", "int8"],
        target=L2Target(limit, data, num_samples=None),
        output_index=0,
        skip_breaking=True,
        progress=False,
    )
    assert found.baseline_score == 0 and found.stop_reason == "complete"
    assert set(sim.precisions()) == formats
    assert noise(sim.runner, reference) <= limit
    assert -found.final_score == pytest.approx(noise(sim.runner, reference), rel=1e-3)


def test_formats_by_hand_are_exported() -> None:
    sim = onnx_sim()
    requests = onnx_mixed_precision.MixedPrecisionConfigurator(sim)
    requests.set_precision("first", "int8", {"weight": "int8"})
    requests.set_precision("second", "fp16", {"weight": "fp16"})
    requests.set_precision("third", "fp32", {"weight": "fp32"})
    requests.apply(log_file=None, strict=False)
    found = dict(
        zip([e.label for e in sim._bank.entries], sim.precisions(), strict=True)
    )
    assert (found["w1"], found["w2"], found["w3"]) == ("int8", "fp16", "fp32")
    check_export(sim)


def check_export(sim: Any) -> None:
    model = build_qdq_model(sim).model
    onnx.checker.check_model(model, full_check=True)
    ops = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Cast"} <= ops
    expected = output_of(sim.session)
    for optimized in (False, True):
        (got,) = run(model, {"x": X}, optimized)
        assert np.abs(got - expected).max() < 0.02 * np.abs(expected).max()


# ----- the same by configurations of Quark -----


def quark_outputs(quantizer: ModelQuantizer, model: Any) -> tuple[Any, Any]:
    pairs = [
        (
            np.concatenate([r.ravel() for r in run(model, {"x": x})]),
            np.concatenate(
                [r.ravel() for r in quantizer.sim.session.run(None, {"x": x})]
            ),
        )
        for x in DATA
    ]
    got, want = zip(*pairs, strict=True)
    return np.array(got), np.array(want)


def test_quark_mixes_three_formats_by_layer() -> None:
    spec = Int8Spec(calibration_method=CalibMethod.MinMax, symmetric=False)
    half = Float16Spec()
    config = QConfig(
        QLayerConfig(activation=spec, weight=Int8Spec()),
        specific_layer_config={QLayerConfig(activation=half, weight=half): ["conv2"]},
        exclude=["gemm"],
    )
    quantizer = ModelQuantizer(config)
    model = quantizer.quantize_model(network(), None, Reader())
    found = precisions(quantizer)
    assert [found[n] for n in ("x", "conv1.weight", "z")] == ["int8"] * 3
    assert [found[n] for n in ("r", "conv2.weight", "b")] == ["fp16"] * 3
    assert [found[n] for n in ("gemm.weight", "y")] == ["fp32"] * 2
    got, want = quark_outputs(quantizer, model)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_quark_searches_from_half_precision_to_integers() -> None:
    """Float types have no range to calibrate, those they are narrowed to have."""
    for target in (0.5, 0.02):
        config = auto(L2Target=target)
        config.activation_type = config.weight_type = VitisQuantType.QFloat16
        quantizer = ModelQuantizer(Config(config))
        model = quantizer.quantize_model(network(), None, Reader())
        found = set(precisions(quantizer).values())
        assert found == ({"int4", "fp16"} if target == 0.5 else {"fp16"})
        assert quantizer.result is not None
        assert -quantizer.result.final_score <= target
        got, want = quark_outputs(quantizer, model)
        np.testing.assert_allclose(got, want, atol=2e-3)
