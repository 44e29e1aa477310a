# SPDX-License-Identifier: BSD-3-Clause
"""What of Quark's options has no effect is an error; what has one, has it."""

from __future__ import annotations

from typing import Any

import pytest

onnxruntime = pytest.importorskip("onnxruntime")

from quark_models import DATA, auto, quantize, tutorial  # noqa: E402

from aimetpp.quark import (  # noqa: E402
    AutoMixprecisionConfig,
    CalibMethod,
    Int8Spec,
    Int16Spec,
    QConfig,
    QLayerConfig,
    QuantGranularity,
    QuantType,
    UInt8Spec,
    XInt8Spec,
)

MIN_MAX = {"calibration_method": CalibMethod.MinMax}
MSE = {"calibration_method": CalibMethod.MinMSE}
WIDE = QLayerConfig(activation=Int16Spec(**MIN_MAX), weight=Int8Spec(**MIN_MAX))


def test_layers_are_calibrated_as_their_specs_say() -> None:
    plain = quantize(QConfig(WIDE)).sim.qc_quantize_op_dict
    layer = QLayerConfig(input_tensors=UInt8Spec(**MIN_MAX), weight=Int8Spec(**MSE))
    config = QConfig(WIDE, specific_layer_config={layer: ["conv1"]})
    found = quantize(config).sim.qc_quantize_op_dict
    assert found["x"].precision == "int8" and not found["x"].symmetric
    assert found["x"].get_min().item() == pytest.approx(DATA.min(), abs=0.05)
    assert found["conv1.weight"].scheme == "mse"
    assert (
        found["conv1.weight"].get_scale().item()
        < plain["conv1.weight"].get_scale().item()
    )
    for name in ("conv2.weight", "gemm.weight"):
        assert found[name].get_scale().item() == plain[name].get_scale().item()
    assert found["b"].symmetric


def test_weights_have_a_calibration_of_their_own() -> None:
    plain = quantize(QConfig(WIDE)).sim.qc_quantize_op_dict
    mixed = QLayerConfig(activation=Int16Spec(**MIN_MAX), weight=Int8Spec(**MSE))
    found = quantize(QConfig(mixed)).sim.qc_quantize_op_dict
    names = ["conv1.weight", "conv2.weight", "gemm.weight"]
    scales = [(found[n].get_scale().item(), plain[n].get_scale().item()) for n in names]
    assert any(mse < covering for mse, covering in scales)
    assert found["x"].get_scale().item() == plain["x"].get_scale().item()


CHANNEL = {"quant_granularity": QuantGranularity.Channel}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (QLayerConfig(weight=Int8Spec(**CHANNEL)), "conv2: weight: quant_granularity"),
        (
            QLayerConfig(activation=Int8Spec(**CHANNEL)),
            "activation: .*one range",
        ),
        (QLayerConfig(activation=XInt8Spec()), "conv2: activation: scale_type"),
        (QLayerConfig(weight=UInt8Spec()), "conv2: weight: weights are symmetric"),
    ],
)
def test_fields_of_layers_without_effect(layer: QLayerConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(QConfig(WIDE, specific_layer_config={layer: ["conv2"]}))


def test_fields_of_the_model_without_effect() -> None:
    uneven = QLayerConfig(activation=XInt8Spec(symmetric=False), weight=XInt8Spec())
    with pytest.raises(ValueError, match="powers of two are symmetric"):
        quantize(QConfig(uneven))
    layers = {
        QLayerConfig(weight=Int8Spec(**MIN_MAX)): ["conv2"],
        QLayerConfig(weight=Int16Spec()): ["conv2"],
    }
    with pytest.raises(ValueError, match="'conv2' is asked for twice"):
        quantize(QConfig(WIDE, specific_layer_config=layers))
    with pytest.raises(ValueError, match="'gemm' is asked for twice, or also in excl"):
        layers = {QLayerConfig(weight=Int16Spec()): ["gemm"]}
        quantize(QConfig(WIDE, exclude=["gemm"], specific_layer_config=layers))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric_threshold": None, "metric_default": "kl"}, ValueError, "one of"),
        ({"metric_threshold": None, "metric_default": "cosine"}, ValueError, "effect"),
        ({"metric_threshold": None, "metric_output_index": 1}, ValueError, "no effect"),
        ({"metric_threshold": None, "data_size": 2}, ValueError, "no effect"),
        ({"metric_threshold": -1}, ValueError, "at least 0, got -1"),
        ({"metric_threshold": "low"}, TypeError, "must be a number"),
        ({"data_size": -3}, ValueError, "data_size must be at least 0, got -3"),
        ({"data_size": 1.5}, TypeError, "data_size must be an int"),
        (
            {"metric_evaluate_fn": len, "metric_default": "cosine"},
            ValueError,
            "no effect beside a function",
        ),
        (
            {"target_layer_config": QLayerConfig(weight=Int8Spec(**MSE))},
            ValueError,
            "weight: calibration_method must be that of global_config",
        ),
    ],
)
def test_searches_by_the_later_names_are_checked(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    narrow = QLayerConfig(Int8Spec(**MIN_MAX), weight=Int8Spec(**MIN_MAX))
    with pytest.raises(error, match=message):
        search = AutoMixprecisionConfig(**{"target_layer_config": narrow, **options})
        quantize(QConfig(WIDE, algo_config=[search]))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"CalibDataSize": 1.7}, TypeError, "must be an int, got 1.7"),
        ({"CalibDataSize": -3}, ValueError, "at least 1, got -3"),
        ({"ActivationSymmetric": "False"}, TypeError, "must be a bool, got 'False'"),
        ({"Int32Bias": 1}, TypeError, "must be a bool"),
        ({"Percentile": "high"}, TypeError, "must be a number"),
    ],
)
def test_values_of_extra_options_are_checked(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        quantize(tutorial(extra_options=options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"TargetTensors": ["r"], "TargetOpType": ["Conv"]}, "TargetOpType has no eff"),
        ({"TargetTensors": ["r"], "NoInputQDQShared": True}, "NoInputQDQShared has no"),
        ({"L2Target": 1.0, "DataSize": 0}, "DataSize must be at least 1, got 0"),
    ],
)
def test_options_of_the_search_without_effect(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(auto(**options))


def test_requests_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="both name conv2"):
        quantize(tutorial(nodes_to_quantize=["conv2"], nodes_to_exclude=["conv2"]))
    config = auto(TargetTensors=["r"])
    config.specific_tensor_precision = True
    config.extra_options["MixedPrecisionTensor"] = {QuantType.QInt8: ["r"]}
    with pytest.raises(ValueError, match="both ask for a precision of r"):
        quantize(config)
    asked = {"MixedPrecisionTensor": {QuantType.QInt4: ["conv2.weight"]}}
    config = tutorial(
        nodes_to_exclude=["conv2"], specific_tensor_precision=True, extra_options=asked
    )
    with pytest.raises(ValueError, match="'conv2.weight' stays in float"):
        quantize(config)


def test_tensors_by_the_later_names() -> None:
    options = {
        "SpecificTensorPrecision": True,
        "MixedPrecisionTensor": {QuantType.QInt8: ["r"]},
        "TensorQuantOverrides": {"conv2.weight": [{"quant_type": QuantType.QInt4}]},
    }
    found = quantize(QConfig(WIDE, extra_options=options)).sim.qc_quantize_op_dict
    assert found["r"].precision == "int8" and found["x"].precision == "int16"
    assert found["conv2.weight"].precision == "int4"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"SpecificTensorPrecision": True}, ValueError, "go with 'MixedPrecisionTens"),
        ({"TensorQuantOverrides": ["r"]}, TypeError, "must be a dict"),
        ({"TensorQuantOverrides": {"r": []}}, TypeError, "a list of one dict"),
        (
            {"TensorQuantOverrides": {"r": [{"axis": 0}]}},
            ValueError,
            r"no other key is supported, got \['axis'\]",
        ),
        (
            {
                "MixedPrecisionTensor": {QuantType.QInt8: ["r"]},
                "TensorQuantOverrides": {"r": [{"quant_type": QuantType.QInt4}]},
            },
            ValueError,
            "'r' is there twice, as int8 and as int4",
        ),
    ],
)
def test_tensors_by_the_later_names_are_checked(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        quantize(QConfig(WIDE, extra_options=options))
