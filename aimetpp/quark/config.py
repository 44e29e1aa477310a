# SPDX-License-Identifier: BSD-3-Clause
"""Configurations of AMD Quark for ONNX, in the tutorial's names and the later ones.

Both are read into one `Plan`. What has no effect here is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aimetpp.quark.auto import AutoPlan, read_auto_options
from aimetpp.quark.types import (
    CalibrationMethod,
    ExtendedQuantFormat,
    ExtendedQuantType,
    PowerOfTwoMethod,
    QuantFormat,
    QuantType,
    VitisQuantFormat,
    precision_of,
    scheme_of,
)

_QDQ = (QuantFormat.QDQ, ExtendedQuantFormat.QDQ, VitisQuantFormat.QDQ)


@dataclass
class QuantizationConfig:
    """One configuration for the whole model.

    Attributes:
        calibrate_method: how ranges are chosen. PowerOfTwoMethod makes scales powers of
            two and activations symmetric.
        quant_format: QDQ, in any of the three classes.
        activation_type, weight_type: quant types.
        specific_tensor_precision: honour `MixedPrecisionTensor`, which must be there.
        include_auto_mp: search, as `AutoMixprecision` says, which must be there.
        op_types_to_quantize, nodes_to_quantize: others stay in float; empty: all are
            quantized.
        nodes_to_exclude: nodes that stay in float.
        execution_providers: of onnxruntime.
        per_channel: one range per output channel of a weight.
        use_dynamic_quant, include_cle, include_sq, include_fast_ft, reduce_range,
        convert_fp16_to_fp32, convert_nchw_to_nhwc, enable_npu_cnn,
        enable_npu_transformer, use_external_data_format, debug_mode, crypto_mode: must
            be False; `include_cle`, which Quark has on, is off here.
        extra_options: MixedPrecisionTensor {quant type: [tensors]}, AutoMixprecision (a
            dict, or an AutoMixprecisionConfig's options), ActivationSymmetric,
            Int32Bias, Percentile, CalibDataSize.
    """

    calibrate_method: CalibrationMethod | PowerOfTwoMethod = CalibrationMethod.MinMax
    quant_format: QuantFormat | ExtendedQuantFormat | VitisQuantFormat = QuantFormat.QDQ
    activation_type: QuantType | ExtendedQuantType = QuantType.QInt8
    weight_type: QuantType | ExtendedQuantType = QuantType.QInt8
    op_types_to_quantize: list[str] = field(default_factory=list)
    nodes_to_quantize: list[str] = field(default_factory=list)
    nodes_to_exclude: list[str] = field(default_factory=list)
    specific_tensor_precision: bool = False
    execution_providers: list[str] = field(
        default_factory=lambda: ["CPUExecutionProvider"]
    )
    per_channel: bool = False
    include_auto_mp: bool = False
    reduce_range: bool = False
    use_dynamic_quant: bool = False
    use_external_data_format: bool = False
    convert_fp16_to_fp32: bool = False
    convert_nchw_to_nhwc: bool = False
    include_sq: bool = False
    include_cle: bool = False
    include_fast_ft: bool = False
    enable_npu_cnn: bool = False
    enable_npu_transformer: bool = False
    debug_mode: bool = False
    crypto_mode: bool = False
    extra_options: dict[str, Any] = field(default_factory=dict)


# Attributes of QuantizationConfig that only have one value here.
_MUST_BE_FALSE = (
    *("reduce_range", "use_dynamic_quant", "use_external_data_format", "include_sq"),
    *("convert_fp16_to_fp32", "convert_nchw_to_nhwc", "include_cle", "debug_mode"),
    *("include_fast_ft", "enable_npu_cnn", "enable_npu_transformer", "crypto_mode"),
)


@dataclass
class Config:
    """What `ModelQuantizer` takes.

    Attributes:
        global_quant_config: the configuration.
    """

    global_quant_config: QuantizationConfig


@dataclass
class NodeRequest:
    """Another precision for some nodes; None leaves as it is.

    Attributes:
        nodes: names, globs, or op types where `by_type`.
        activation: of what they read and make.
        weight: of what they multiply by.
        by_type: `nodes` are op types.
        scheme, symmetric: of the activations' calibration; None: the model's.
        weight_scheme: of the weights' calibration; None: the model's.
    """

    nodes: list[str]
    activation: str | None
    weight: str | None
    by_type: bool = False
    scheme: str | None = None
    symmetric: bool | None = None
    weight_scheme: str | None = None

    @property
    def is_float(self) -> bool:
        """The nodes are left out of quantization."""
        return self.activation == "fp32" and self.weight == "fp32"


@dataclass
class Plan:
    """What a configuration asks for, in aimetpp's terms."""

    activation: str
    weight: str
    scheme: str
    weight_scheme: str
    power_of_two: bool = False
    per_channel: bool = False
    symmetric: bool = False
    percentile: float | None = None
    int32_bias: bool = True
    data_size: int | None = None
    providers: list[str] = field(default_factory=lambda: ["CPUExecutionProvider"])
    tensors: dict[str, str] = field(default_factory=dict)
    requests: list[NodeRequest] = field(default_factory=list)
    only_nodes: list[str] = field(default_factory=list)
    only_types: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    auto: AutoPlan | None = None


def read_config(config: QuantizationConfig) -> Plan:
    """The plan of a tutorial's configuration.

    Raises:
        TypeError: something of the wrong type.
        ValueError: a value, a key or an attribute that has no effect here.
    """
    if not isinstance(config, QuantizationConfig):
        raise TypeError(
            "Config: global_quant_config must be a QuantizationConfig, got "
            f"{type(config).__name__}"
        )
    for name in _MUST_BE_FALSE:
        if getattr(config, name):
            raise ValueError(f"{name}=True is not supported")
    if config.quant_format not in _QDQ:
        raise ValueError(f"quant_format must be QDQ, got {config.quant_format!r}")
    scheme = scheme_of(config.calibrate_method)
    plan = Plan(
        precision_of(config.activation_type, "activation_type"),
        precision_of(config.weight_type, "weight_type"),
        scheme,
        scheme,
        power_of_two=isinstance(config.calibrate_method, PowerOfTwoMethod),
        per_channel=config.per_channel,
        providers=list(config.execution_providers),
        only_nodes=list(config.nodes_to_quantize),
        only_types=list(config.op_types_to_quantize),
        exclude=list(config.nodes_to_exclude),
    )
    both = sorted({*plan.only_nodes} & {*plan.exclude})
    if both:
        raise ValueError(
            f"nodes_to_quantize and nodes_to_exclude both name {', '.join(both)}"
        )
    options = dict(config.extra_options)
    for flag, key in (
        ("specific_tensor_precision", "MixedPrecisionTensor"),
        ("include_auto_mp", "AutoMixprecision"),
    ):
        if bool(getattr(config, flag)) != (key in options):
            raise ValueError(
                f"{flag}=True and extra_options[{key!r}] go together; one of them "
                "alone has no effect"
            )
    read_extra_options(plan, options)
    return plan


def read_extra_options(plan: Plan, options: Mapping[str, Any]) -> None:
    """Takes over what extra options ask for.

    Raises:
        TypeError: something of the wrong type.
        ValueError: an unknown key, or one that has no effect here.
    """
    readers: dict[str, Callable[[Any], None]] = {
        "MixedPrecisionTensor": lambda value: _read_tensors(plan, value),
        "TensorQuantOverrides": lambda value: _read_overrides(plan, value),
        "AutoMixprecision": lambda value: _set(
            plan, "auto", read_auto_options(value, plan.activation, plan.weight)
        ),
        "ActivationSymmetric": lambda value: _set(
            plan, "symmetric", _flag("ActivationSymmetric", value)
        ),
        "Int32Bias": lambda value: _set(plan, "int32_bias", _flag("Int32Bias", value)),
        "Percentile": lambda value: _set(
            plan, "percentile", _number("Percentile", value)
        ),
        "CalibDataSize": lambda value: _set(
            plan, "data_size", _count("CalibDataSize", value)
        ),
    }
    for key, value in options.items():
        if key not in readers:
            raise ValueError(
                f"extra_options: {key!r} is not supported; there are {sorted(readers)}"
            )
        readers[key](value)
    _check_percentile(plan)
    if plan.power_of_two and options.get("ActivationSymmetric") is False:
        raise ValueError("PowerOfTwoMethod makes activations symmetric")
    plan.symmetric = plan.symmetric or plan.power_of_two
    if plan.auto is not None:
        both = sorted({*plan.auto.tensors} & {*plan.tensors})
        if both:
            raise ValueError(
                "MixedPrecisionTensor and TargetTensors both ask for a precision of "
                f"{', '.join(both)}"
            )


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"extra_options[{key!r}] must be a bool, got {value!r}")
    return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"extra_options[{key!r}] must be a number, got {value!r}")
    return float(value)


def _count(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"extra_options[{key!r}] must be an int, got {value!r}")
    if value < 1:
        raise ValueError(f"extra_options[{key!r}] must be at least 1, got {value}")
    return value


def _check_percentile(plan: Plan) -> None:
    if plan.percentile is None:
        return
    if "percentile" not in (plan.scheme, plan.weight_scheme):
        raise ValueError(
            "extra_options['Percentile'] has no effect without "
            "CalibrationMethod.Percentile"
        )
    if not 50 <= plan.percentile <= 100:
        raise ValueError(
            "extra_options['Percentile'] must be between 50 and 100, got "
            f"{plan.percentile}"
        )


def _set(plan: Plan, name: str, value: Any) -> None:
    assert name in {item.name for item in dataclasses.fields(plan)}
    setattr(plan, name, value)


def _read_tensors(plan: Plan, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(
            "MixedPrecisionTensor must be a dict {quant type: [tensor names]}, got "
            f"{type(value).__name__}"
        )
    for quant_type, names in value.items():
        precision = precision_of(quant_type, "MixedPrecisionTensor")
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise TypeError(
                f"MixedPrecisionTensor[{quant_type}] must be a list of tensor names, "
                f"got {names!r}"
            )
        for name in names:
            _set_tensor(plan, name, precision)


def _read_overrides(plan: Plan, value: Any) -> None:
    """The same in the form of onnxruntime: {tensor: [{"quant_type": quant type}]}."""
    if not isinstance(value, Mapping):
        raise TypeError(
            'TensorQuantOverrides must be a dict {tensor: [{"quant_type": type}]}, got '
            f"{type(value).__name__}"
        )
    for name, overrides in value.items():
        where = f"TensorQuantOverrides[{name!r}]"
        if (
            not isinstance(overrides, Sequence)
            or len(overrides) != 1
            or not isinstance(overrides[0], Mapping)
        ):
            raise TypeError(f"{where} must be a list of one dict, got {overrides!r}")
        if list(overrides[0]) != ["quant_type"]:
            raise ValueError(
                f'{where}: "quant_type" and no other key is supported, got '
                f"{sorted(map(str, overrides[0]))}"
            )
        _set_tensor(plan, name, precision_of(overrides[0]["quant_type"], where))


def _set_tensor(plan: Plan, name: str, precision: str) -> None:
    if name in plan.tensors:
        raise ValueError(
            f"MixedPrecisionTensor, TensorQuantOverrides: {name!r} is there twice, as "
            f"{plan.tensors[name]} and as {precision}"
        )
    plan.tensors[name] = precision
