# SPDX-License-Identifier: BSD-3-Clause
"""Configurations of AMD Quark on a small ONNX model, in both generations of names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

onnxruntime = pytest.importorskip("onnxruntime")

from quark_models import (  # noqa: E402
    DATA,
    Reader,
    auto,
    distance,
    float_outputs,
    network,
    outputs,
    precisions,
    quantize,
    tutorial,
)

from aimetpp.quark import (  # noqa: E402
    AutoMixprecisionConfig,
    CalibMethod,
    CalibrationMethod,
    Config,
    Float16Spec,
    Int8Spec,
    Int16Spec,
    ModelQuantizer,
    PowerOfTwoMethod,
    QConfig,
    QLayerConfig,
    QuantFormat,
    QuantType,
    VitisQuantType,
    XInt8Spec,
)


def test_tensors_get_the_precision_they_are_listed_with(tmp_path: Path) -> None:
    config = tutorial(
        specific_tensor_precision=True,
        extra_options={
            "MixedPrecisionTensor": {
                VitisQuantType.QInt8: ["x", "r"],
                VitisQuantType.QInt4: ["conv2.weight"],
            }
        },
    )
    onnx.save(network(), tmp_path / "float.onnx")
    quantizer = ModelQuantizer(Config(global_quant_config=config))
    model = quantizer.quantize_model(
        tmp_path / "float.onnx", tmp_path / "quantized.onnx", Reader()
    )
    assert precisions(quantizer) == {
        "x": "int8",
        "r": "int8",
        "b": "int16",
        "y": "int16",
        "z": "int16",
        "conv1.weight": "int8",
        "conv2.weight": "int4",
        "gemm.weight": "int8",
    }
    assert quantizer.result is None
    written = onnx.load(tmp_path / "quantized.onnx")
    assert written == model
    assert [path.name for path in tmp_path.glob("*.part")] == []
    assert {"QuantizeLinear", "DequantizeLinear"} <= {
        n.op_type for n in model.graph.node
    }
    session = onnxruntime.InferenceSession(tmp_path / "quantized.onnx")
    for x, expected in zip(DATA, outputs(quantizer), strict=True):
        for got, want in zip(session.run(None, {"x": x}), expected, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-3)


def test_l2_target_is_kept() -> None:
    loose, tight = (quantize(auto(L2Target=target)) for target in (0.5, 0.2))
    for quantizer, target in ((loose, 0.5), (tight, 0.2)):
        assert quantizer.result is not None
        assert -quantizer.result.final_score == pytest.approx(
            distance(quantizer), rel=1e-4
        )
        assert distance(quantizer) <= target
    narrow = [sum(p == "int4" for p in precisions(q).values()) for q in (loose, tight)]
    assert narrow[0] > narrow[1] > 0
    # What no layer of the searched types reads stays wide.
    assert precisions(loose)["y"] == precisions(loose)["z"] == "int16"


def test_output_index_and_evaluate_function() -> None:
    """Nothing that happens after relu counts for output 1."""
    calls: list[Any] = []
    expected = float_outputs()

    def accuracy(results: list[list[np.ndarray]]) -> float:
        calls.append(results)
        assert all(len(result) == 1 for result in results)
        pairs = zip(results, expected, strict=False)
        return 1 - float(np.mean([np.abs(a[0] - b[1]).mean() for a, b in pairs]))

    options = {"EvaluateFunction": accuracy, "OutputIndex": 1, "DataSize": 4}
    quantizer = quantize(auto(Top1AccTarget=0.02, **options))
    assert quantizer.result is not None and len(calls[0]) == 4
    found = precisions(quantizer)
    assert found["b"] == found["gemm.weight"] == found["conv2.weight"] == "int4"
    assert found["conv1.weight"] == "int8"
    assert quantizer.result.fp32_score - quantizer.result.final_score <= 0.02
    with pytest.raises(ValueError, match="OutputIndex must be below 2"):
        quantize(auto(Top1AccTarget=0.02, **{**options, "OutputIndex": 2}))


def test_layers_by_index_and_tensors_need_no_search() -> None:
    found = precisions(quantize(auto(TargetIndices=[1])))
    assert {name for name, p in found.items() if p == "int4"} == {"r", "conv2.weight"}
    found = precisions(quantize(auto(ExcludeIndices=[0])))
    assert found["conv1.weight"] == "int8" and found["gemm.weight"] == "int4"
    found = precisions(quantize(auto(TargetTensors=["b", "conv1.weight"])))
    assert {name for name, p in found.items() if p == "int4"} == {"b", "conv1.weight"}
    found = precisions(quantize(auto()))
    assert found["x"] == found["gemm.weight"] == "int4" and found["y"] == "int16"
    # The tensor r has two readers.
    found = precisions(quantize(auto(NoInputQDQShared=True)))
    assert found["r"] == "int16" and found["x"] == "int4"
    result = quantize(auto(NumTarget=1)).result
    assert result is not None and len(result) == 1
    with pytest.raises(ValueError, match="there is no layer 3; the layers are .*conv1"):
        quantize(auto(TargetIndices=[3]))


def test_scales_are_powers_of_two_where_asked() -> None:
    for method in PowerOfTwoMethod:
        config = auto(L2Target=0.5)
        config.calibrate_method = method
        quantizer = quantize(config)
        integer = [q for q in quantizer.sim.quantizers_by_index if q.is_initialized()]
        for q in integer:
            exponents = np.log2(q.get_scale().detach().numpy())
            np.testing.assert_array_equal(exponents, exponents.round())
            np.testing.assert_allclose(q.get_offset().detach().numpy(), 0, atol=1e-3)
        assert quantizer.result is not None
        assert -quantizer.result.final_score == pytest.approx(
            distance(quantizer), rel=1e-3
        )


def test_later_names_ask_for_the_same() -> None:
    spec = {"calibration_method": CalibMethod.MinMax, "symmetric": False}
    wide = QLayerConfig(activation=Int16Spec(**spec), weight=Int8Spec())
    config = QConfig(
        wide,
        layer_type_config={QLayerConfig(weight=Int16Spec()): ["Conv"]},
        specific_layer_config={QLayerConfig(weight=Float16Spec()): ["conv2"]},
        exclude=["gemm"],
    )
    found = precisions(quantize(config))
    assert found["conv1.weight"] == "int16" and found["conv2.weight"] == "fp16"
    assert found["gemm.weight"] == "fp32"

    narrow = QLayerConfig(input_tensors=Int8Spec(**spec), weight=Int8Spec())
    search = AutoMixprecisionConfig(
        narrow,
        metric_threshold=-30,
        metric_default="sqnr",
        metric_output_index=None,
        exclude_layers=["gemm"],
    )
    config = QConfig(wide, algo_config=[search])
    quantizer = quantize(config)
    found = precisions(quantizer)
    assert found["b"] == "int16" and "int8" in {found["x"], found["r"]}
    pairs = zip(float_outputs(), outputs(quantizer), strict=True)
    signal = noise = 0.0
    for old, new in pairs:
        for a, b in zip(old, new, strict=True):
            signal, noise = signal + (a**2).sum(), noise + ((a - b) ** 2).sum()
    assert 10 * np.log10(signal / noise) >= 30
    precise = quantize(
        QConfig(QLayerConfig(activation=XInt8Spec(), weight=XInt8Spec()))
    )
    assert set(precisions(precise).values()) == {"int8"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include_cle": True}, "include_cle=True is not supported"),
        ({"quant_format": QuantFormat.QOperator}, "quant_format must be QDQ"),
        ({"activation_type": VitisQuantType.QBFP}, "QBFP is not simulated"),
        ({"calibrate_method": CalibrationMethod.Entropy}, "Entropy is not there"),
        ({"include_auto_mp": True}, "go together"),
        ({"extra_options": {"MixedPrecisionTensor": {}}}, "go together"),
        ({"extra_options": {"AlignEltwise": True}}, "'AlignEltwise' is not supported"),
        ({"extra_options": {"Percentile": 99.9}}, "no effect without"),
        ({"nodes_to_exclude": ["nothing"]}, "no node 'nothing'"),
        ({"op_types_to_quantize": ["Gemn"]}, "'Gemn' is no ONNX op type"),
        ({"op_types_to_quantize": ["LSTM"]}, "no node is left to quantize"),
    ],
)
def test_what_has_no_effect_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(tutorial(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"L2Target": -1}, "L2Target must be at least 0"),
        ({"L2Traget": 1}, r"unknown keys \['L2Traget'\]"),
        ({"L2Target": 1, "Top1AccTarget": 1}, "not both"),
        ({"Top1AccTarget": 1}, "go together"),
        ({"OutputIndex": 0}, "no effect where nothing is measured"),
        ({"DualQuantNodes": True, "L2Target": 1}, "DualQuantNodes=True is not supp"),
        ({"TargetTensors": ["x"], "L2Target": 1}, "no effect with TargetTensors"),
        ({"TargetTensors": ["nothing"]}, "no tensor 'nothing' is quantized"),
        ({"SkipBreaking": True}, "no effect without a target"),
        ({"TargetQuantType": QuantType.QInt8}, "TargetQuantType has no effect"),
        ({"TargetIndices": [0], "ExcludeIndices": [1]}, "not both"),
    ],
)
def test_options_of_the_search_are_checked(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(auto(**options))


def test_the_file_computes_what_was_searched(tmp_path: Path) -> None:
    """Biases are 32-bit integers in both."""
    quantizer = ModelQuantizer(Config(auto(L2Target=0.5)))
    path = tmp_path / "made" / "quantized.onnx"
    quantizer.quantize_model(network(), path, Reader())
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    )
    session = onnxruntime.InferenceSession(path, options)
    for x, expected in zip(DATA, outputs(quantizer), strict=True):
        for got, want in zip(session.run(None, {"x": x}), expected, strict=True):
            np.testing.assert_array_equal(got, want)
    assert [p.name for p in path.parent.iterdir()] == ["quantized.onnx"]


def test_where_it_cannot_write_it_says_so_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    read: list[Any] = []
    for target in (tmp_path, tmp_path / "file" / "quantized.onnx"):
        with pytest.raises(OSError):
            ModelQuantizer(Config(tutorial())).quantize_model(
                network(), target, (read.append(x) for x in DATA)
            )
    assert read == []
    with pytest.raises(TypeError, match="EvaluateFunction must return a number"):
        quantize(auto(Top1AccTarget=0.1, EvaluateFunction=lambda outputs: None))
    with pytest.raises(TypeError, match="Top1AccTarget must be a number"):
        quantize(auto(Top1AccTarget="1", EvaluateFunction=len))


def test_conflicts_and_missing_data_are_errors() -> None:
    config = tutorial(
        specific_tensor_precision=True,
        extra_options={
            "MixedPrecisionTensor": {
                VitisQuantType.QInt8: ["x"],
                VitisQuantType.QInt16: ["x"],
            }
        },
    )
    with pytest.raises(ValueError, match="'x' is there twice, as int8 and as int16"):
        quantize(config)
    quantizer = ModelQuantizer(Config(tutorial()))
    with pytest.raises(TypeError, match="calibration_data_reader must be given"):
        quantizer.quantize_model(network())
    with pytest.raises(ValueError, match="it has no data"):
        quantizer.quantize_model(network(), None, [])
    with pytest.raises(TypeError, match="config must be a Config"):
        ModelQuantizer(tutorial())  # type: ignore[arg-type]
