# SPDX-License-Identifier: BSD-3-Clause
"""The names of Quark's later releases: QConfig, layer configs, tensor specs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from aimetpp.quark.auto import (
    COMPUTE_OPS,
    AutoPlan,
    check_plan,
    mean_cosine_distance,
    mean_l2,
    noise_to_signal,
)
from aimetpp.quark.config import NodeRequest, Plan, read_extra_options


class CalibMethod(Enum):
    """How a spec's range is chosen."""

    MinMax = "min_max"
    Percentile = "percentile"
    MinMSE = "mse"


class ScaleType(Enum):
    """Which scales a spec allows."""

    Float32 = "float32"
    PowerOf2 = "power_of_2"


class QuantGranularity(Enum):
    """How many ranges a tensor has."""

    Tensor = "tensor"
    Channel = "channel"


@dataclass(frozen=True)
class QTensorConfig:
    """How one kind of tensor is quantized.

    Attributes:
        symmetric: the grid's zero is in its middle.
        scale_type: float or powers of two.
        calibration_method: how ranges are chosen.
        quant_granularity: one range, or one per channel.
        precision: of the class.
    """

    symmetric: bool = True
    scale_type: ScaleType = ScaleType.Float32
    calibration_method: CalibMethod = CalibMethod.Percentile
    quant_granularity: QuantGranularity = QuantGranularity.Tensor
    precision: ClassVar[str] = ""


@dataclass(frozen=True)
class Int8Spec(QTensorConfig):
    """8-bit integers."""

    precision = "int8"


@dataclass(frozen=True)
class UInt8Spec(QTensorConfig):
    """8-bit integers, asymmetric."""

    symmetric: bool = False
    precision = "int8"


@dataclass(frozen=True)
class XInt8Spec(QTensorConfig):
    """8-bit integers with scales that are powers of two."""

    scale_type: ScaleType = ScaleType.PowerOf2
    calibration_method: CalibMethod = CalibMethod.MinMSE
    precision = "int8"


@dataclass(frozen=True)
class Int16Spec(QTensorConfig):
    """16-bit integers."""

    precision = "int16"


@dataclass(frozen=True)
class UInt16Spec(QTensorConfig):
    """16-bit integers, asymmetric."""

    symmetric: bool = False
    precision = "int16"


@dataclass(frozen=True)
class Int32Spec(QTensorConfig):
    """32-bit integers."""

    precision = "int32"


@dataclass(frozen=True)
class Float16Spec(QTensorConfig):
    """IEEE half precision."""

    precision = "fp16"


@dataclass(frozen=True)
class BFloat16Spec(QTensorConfig):
    """bfloat16."""

    precision = "bf16"


@dataclass(frozen=True)
class QLayerConfig:
    """How layers are quantized.

    Attributes:
        input_tensors, activation, output_tensors: spec of activations; given more than
            once they must be of one precision, since a tensor between two layers is the
            output of one and the input of the other.
        weight: spec of weights.
        bias: must be None or an Int32Spec.
    """

    input_tensors: QTensorConfig | None = None
    activation: QTensorConfig | None = None
    weight: QTensorConfig | None = None
    bias: QTensorConfig | None = None
    output_tensors: QTensorConfig | None = None

    def activation_spec(self) -> QTensorConfig | None:
        """The one spec of its activations; None where it has none.

        Raises:
            TypeError: something that is no spec.
            ValueError: specs that differ.
        """
        specs = [self.input_tensors, self.activation, self.output_tensors]
        given = [spec for spec in specs if spec is not None]
        for spec in (*given, self.weight, self.bias):
            if spec is not None and not isinstance(spec, QTensorConfig):
                raise TypeError(f"QLayerConfig: a spec is required, got {spec!r}")
        if any(spec != given[0] for spec in given):
            raise ValueError("QLayerConfig: specs of inputs and outputs must be equal")
        if self.bias is not None and self.bias.precision != "int32":
            raise ValueError("QLayerConfig: biases are 32-bit integers")
        return given[0] if given else None


@dataclass
class AutoMixprecisionConfig:
    """Auto mixed precision.

    Attributes:
        target_layer_config: the narrow QLayerConfig, or a list of them.
        target_op_type: layers that are searched.
        include_layers, exclude_layers: nodes by name.
        data_size: samples of the reader; 0: all.
        metric_output_index: the model output that is looked at.
        metric_distance_fn: (float outputs, quantized outputs) -> lower is better; by
            sample, by output.
        metric_evaluate_fn: (outputs) -> higher is better.
        metric_default: "l2", "cosine" or "sqnr" where neither is given.
        metric_threshold: largest distance, or loss of the evaluated score; 0 allows no
            loss, None none at all: everything is narrowed.
        metric_optimize_object: must be "speed": from wide to narrow.
        no_input_qdq_shared: leave out layers whose input others read as well.
        skip_breaking: go on past a layer that breaks the threshold.
    """

    target_layer_config: Any
    target_op_type: Sequence[str] = COMPUTE_OPS
    include_layers: list[str] | None = None
    exclude_layers: list[str] | None = None
    data_size: int = 0
    metric_output_index: int | None = 0
    metric_distance_fn: Callable[..., float] | None = None
    metric_evaluate_fn: Callable[..., float] | None = None
    metric_default: str = "l2"
    metric_threshold: float | None = 0
    metric_optimize_object: str = "speed"
    no_input_qdq_shared: bool = False
    skip_breaking: bool = False


@dataclass
class QConfig:
    """Configuration of the whole model, of layers and of op types.

    Attributes:
        global_config: of all layers.
        specific_layer_config: {QLayerConfig: [node names or globs]}.
        layer_type_config: {QLayerConfig, or None for float: [op types]}.
        exclude: nodes that stay in float.
        algo_config: at most one AutoMixprecisionConfig.
        use_external_data_format: must be False.
        extra_options: as of QuantizationConfig, but for AutoMixprecision.
    """

    global_config: QLayerConfig
    specific_layer_config: dict[QLayerConfig, list[str]] = field(default_factory=dict)
    layer_type_config: dict[QLayerConfig | None, list[str]] = field(
        default_factory=dict
    )
    exclude: list[str] = field(default_factory=list)
    algo_config: list[Any] = field(default_factory=list)
    use_external_data_format: bool = False
    extra_options: dict[str, Any] = field(default_factory=dict)


def read_qconfig(config: QConfig) -> Plan:
    """The plan of a QConfig.

    Raises:
        TypeError: something of the wrong type.
        ValueError: a value, a key or an attribute that has no effect here.
    """
    if config.use_external_data_format:
        raise ValueError("use_external_data_format=True is not supported")
    spec, weight = config.global_config.activation_spec(), config.global_config.weight
    if spec is None or weight is None:
        raise ValueError("QConfig: global_config must have activation and weight specs")
    power_of_two = spec.scale_type is ScaleType.PowerOf2
    for other in (weight, *_weights(config)):
        if (other.scale_type is ScaleType.PowerOf2) != power_of_two:
            raise ValueError("QConfig: scale_type must be the same everywhere")
        if not other.symmetric:
            raise ValueError("QConfig: weights are symmetric")
    plan = Plan(
        spec.precision,
        weight.precision,
        spec.calibration_method.value,
        power_of_two=power_of_two,
        per_channel=weight.quant_granularity is QuantGranularity.Channel,
        symmetric=spec.symmetric,
        exclude=list(config.exclude),
    )
    # From coarse to fine: the latest request wins.
    for by_type, requests in (
        (True, config.layer_type_config),
        (False, config.specific_layer_config),
    ):
        for layers, names in requests.items():
            plan.requests.append(_request(layers, list(names), by_type))
    if "AutoMixprecision" in config.extra_options:
        raise ValueError("QConfig: AutoMixprecisionConfig goes into algo_config")
    read_extra_options(plan, config.extra_options)
    if len(config.algo_config) > 1:
        raise ValueError("QConfig: algo_config takes one AutoMixprecisionConfig")
    for algo in config.algo_config:
        if not isinstance(algo, AutoMixprecisionConfig):
            raise TypeError(
                "QConfig: algo_config takes an AutoMixprecisionConfig, got "
                f"{type(algo).__name__}"
            )
        plan.auto = _auto_plan(algo, plan)
    return plan


def _weights(config: QConfig) -> list[QTensorConfig]:
    layers = [*config.specific_layer_config, *config.layer_type_config]
    return [x.weight for x in layers if x is not None and x.weight is not None]


def _request(
    layers: QLayerConfig | None, names: list[str], by_type: bool
) -> NodeRequest:
    if layers is None:
        return NodeRequest(names, "fp32", "fp32", by_type)
    spec = layers.activation_spec()
    weight = layers.weight
    return NodeRequest(
        names,
        None if spec is None else spec.precision,
        None if weight is None else weight.precision,
        by_type,
    )


def _auto_plan(algo: AutoMixprecisionConfig, plan: Plan) -> AutoPlan:
    if algo.metric_optimize_object != "speed":
        raise ValueError('metric_optimize_object must be "speed": from wide to narrow')
    targets = algo.target_layer_config
    narrow = []
    for layers in targets if isinstance(targets, list) else [targets]:
        if not isinstance(layers, QLayerConfig):
            raise TypeError(
                f"target_layer_config: a QLayerConfig is required, got {layers!r}"
            )
        spec = layers.activation_spec()
        narrow.append(
            (
                plan.activation if spec is None else spec.precision,
                plan.weight if layers.weight is None else layers.weight.precision,
            )
        )
    distances = {"l2": mean_l2, "cosine": mean_cosine_distance, "sqnr": noise_to_signal}
    target = algo.metric_threshold
    distance = algo.metric_distance_fn
    if distance is not None and algo.metric_evaluate_fn is not None:
        raise ValueError("metric_distance_fn or metric_evaluate_fn, not both")
    if distance is None and algo.metric_evaluate_fn is None:
        if algo.metric_default not in distances:
            raise ValueError(
                f"metric_default must be one of {sorted(distances)}, got "
                f"{algo.metric_default!r}"
            )
        distance = distances[algo.metric_default]
        if algo.metric_default == "sqnr" and target is not None:
            target = 10 ** (target / 10)  # given as minus decibels
    measured = target is not None
    auto = AutoPlan(
        narrow,
        distance=distance,
        evaluate=algo.metric_evaluate_fn,
        target=target,
        output_index=algo.metric_output_index if measured else None,
        data_size=algo.data_size or None,
        op_types=tuple(algo.target_op_type),
        include=list(algo.include_layers or ()),
        exclude=list(algo.exclude_layers or ()),
        skip_breaking=algo.skip_breaking,
        no_input_shared=algo.no_input_qdq_shared,
    )
    check_plan(auto)
    return auto
